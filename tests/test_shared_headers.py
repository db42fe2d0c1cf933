"""The mathematics of a row is shared with CUDA: its headers compile as device code, GPU or none."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parent.parent / "csrc"
CALLS = """
using namespace pgest;
__global__ void use(double* x, float* y, unsigned* w, TokenStatsBackward args) {
  const RowState state = finish(merge({x[0], x[1], x[2]}, {x[3], x[4], x[5]}, x[6]));
  x[7] = token_logp(x[8], state, x[9]) + lse_of(state, x[9]);
  y[0] = gradient<float>(state, RowUpstream{x[10], x[11], x[12]}, x[9]).base;
  x[13] = temperature_gradient(x[14], RowUpstream{}, state, RowMoments{}, x[9]);
  const PairState pair = finish(rebase(PairSums{}, x[15], x[16], x[6]));
  y[1] = gradient<float>(pair, PairUpstream{}, x[9]).kl;
  x[17] = next_perturbed(x[18], x[19], x[20]);
  x[21] = uniform_of(kStratified, [&](int64_t s) { return x[s]; }, 1, 4);
  const Words words = noise_words(w[0], 3, 5);
  y[2] = gumbel_of(exponential_noise<float>(words.a, words.b));
  x[22] = gumbel_of(exponential_of(x[23]));
  y[3] = jacobian_of(y[4], y[5], reinmax_row<float>(x[0], x[1], x[2], x[9]));
  y[6] = draw_bit(y[7], rare_of(y[8]), words.c, words.d, 0) + certainty_cost(y[9]);
  y[10] = entropy_slope(y[11], y[12]);
  x[25] = saved_state(args, w[1]).kl + upstream<float>(args, w[1]).lse;
  x[24] = round_up<float>(min_p_edge(x[0], x[9], x[1])) + top_p_bound(x[0], x[1], 7, x[6], x[2]);
}
"""


def nvcc() -> str | None:
    """The toolkit's own compiler before what stands for it on the PATH."""
    homes = [os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    found = [Path(home, "bin", "nvcc") for home in homes if home]
    return next((str(path) for path in found if path.is_file()), shutil.which("nvcc"))


@pytest.mark.slow
@pytest.mark.skipif(nvcc() is None, reason="needs nvcc")
def test_shared_headers_compile_for_the_device(tmp_path: Path) -> None:
    headers = sorted(CSRC.glob("*.h"))
    assert "row.h" in [path.name for path in headers]
    source = tmp_path / "use.cu"
    source.write_text("".join(f'#include "{path}"\n' for path in headers) + CALLS)
    command = [str(nvcc()), "-std=c++20", "-arch=sm_90", "--expt-relaxed-constexpr"]
    command += ["-Werror", "all-warnings", "-c", str(source), "-o", str(tmp_path / "use.o")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
