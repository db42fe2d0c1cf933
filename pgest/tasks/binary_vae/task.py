"""The task: images, autoencoders, the bound that is raised and the test."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from pgest import Bernoulli
from pgest.data import Images, digits, fetch_mnist, mnist
from pgest.estimators import Estimator
from pgest.runs import Clock, Evaluation, Figures, Metric
from pgest.runs.files import write_text
from pgest.runs.record import to_json
from pgest.tasks.binary_vae.config import BinaryVAEConfig
from pgest.tasks.binary_vae.estimators import LEARNED, estimate, make
from pgest.tasks.binary_vae.model import ALL, Autoencoder
from pgest.tasks.binary_vae.report import report

NAME = "binary-vae"
CACHE = Path.home() / ".cache" / "pgest" / "mnist"
ROWS = 6000  # codes that are decoded at once in evaluations: 20 MB of pixels
EVALUATION_SEED = 1234


class BinaryVAE:
    """Train autoencoders with a code of bits; the estimator gives the encoder its gradient.

        ELBO = E[log p(x | z) + log p(z) - log q(z | x)],   z ~ q(z | x),   p(z) = 1/2 for each bit

    Grey images are binarised anew each time they are read: a pixel of intensity v is 1 with
    probability v / 255. Images are drawn with replacement; the last of the training part, as many
    as there are test images, are held out. Decoder and encoder learn from the same samples.
    """

    name = NAME
    metric = Metric("held-out ELBO", "max")
    shown = ("training ELBO", "held-out ELBO")

    def __init__(self, config: BinaryVAEConfig) -> None:
        self.config = config
        self.device = torch.device(config.device)
        images = load(config.data)
        held_out = len(images.test)
        self.images = images.name
        self.train, self.held_out, self.tested = (
            part.flatten(1).to(self.device)
            for part in (
                images.train[:-held_out],
                images.train[-held_out:],
                images.test[: config.test_images],
            )
        )
        pixels = self.train.shape[1]
        with torch.random.fork_rng([]):
            torch.manual_seed(config.seed)
            self.vae = Autoencoder(config.models, pixels, config.hidden, config.code)
            made = [
                make(config.estimator, config.temperature, pixels, config.code)
                for _ in range(config.models)
            ]
        self.own = config.estimator in LEARNED  # each model has one, for the state it keeps
        self.estimators = made if self.own else made[:1]
        # Not the registry's own: what is in the model changes its mode and its device.
        learned = [e for e in self.estimators if self.own and isinstance(e, nn.Module)]
        self.model = nn.ModuleList([self.vae, *learned]).to(self.device)

    @property
    def learner(self) -> BinaryVAE:
        """Itself: there is one way to train it."""
        return self

    @property
    def panels(self) -> Mapping[str, Sequence[str]]:
        """The curves of the plot."""
        return {
            f"ELBO in nats, {self.images}": ["training ELBO", "held-out ELBO"],
            "cost of the samples in nats": ["cost"],
        }

    def loss(self, generator: torch.Generator, clock: Clock) -> tuple[Tensor, Figures]:
        """Return minus the bound, and what the estimators learn from, summed over the models."""
        with clock("images"):
            x = self.batch(generator)
        with clock("forward"):
            q = self.vae.posterior(x)
            parts = [slice(i, i + 1) for i in range(self.config.models)] if self.own else [ALL]
            values = [
                self._value(estimator, q, x, part, generator)
                for estimator, part in zip(self.estimators, parts, strict=True)
            ]
            cost = torch.cat(values)
            loss = cost.mean(1).sum()
            for estimator in self.estimators:
                if estimator.fit_loss is not None:
                    loss = loss + estimator.fit_loss
        return loss, {"cost": cost.detach().mean().item()}

    def batch(self, generator: torch.Generator) -> Tensor:
        """Return images [R, B, pixels], each model's own, binarised."""
        size = (self.config.models, self.config.batch_size)
        index = torch.randint(len(self.train), size, generator=generator, device=self.device)
        return binarised(self.train[index], generator)

    def _value(
        self,
        estimator: Estimator,
        q: Bernoulli,
        x: Tensor,
        part: slice,
        generator: torch.Generator,
    ) -> Tensor:
        """Return minus the bound of some of the models, [r, B]."""
        x, mine = x[part], Bernoulli(q.logits[part], event_dims=1)
        sampled = self.config.kl == "sampled"

        def cost(z: Tensor, frozen: bool = False) -> Tensor:
            likelihood = self.vae.log_likelihood(z, x, part, frozen)
            return (self.vae.log_ratio(z, mine) if sampled else 0) - likelihood

        value = estimate(
            estimator, cost, mine, x, self.config.num_samples, generator, lambda z: cost(z, True)
        )
        return value if sampled else value + self.vae.kl(mine)

    def evaluate(self) -> Evaluation:
        """Return the ELBO of training and held-out images, of hard codes, a draw for each."""
        limit = self.config.evaluation_images
        parts = {"training ELBO": self.train[:limit], "held-out ELBO": self.held_out[:limit]}
        return self._measured({name: self.bounds(images, 1) for name, images in parts.items()})

    def test(self) -> Evaluation:
        """Return the ELBO of the test images, and the bound of many draws."""
        many = self.config.bound_samples
        return self._measured(
            {
                "test ELBO": self.bounds(self.tested, 1),
                f"test bound of {many} draws": self.bounds(self.tested, many),
            }
        )

    @torch.no_grad()
    def bounds(self, images: Tensor, draws: int) -> Tensor:
        """Return log 1/K sum_k p(x, z_k) / q(z_k | x) of each image [R, N], K = `draws`.

        Binarisation and draws are the same at every call.
        """
        generator = torch.Generator(self.device).manual_seed(EVALUATION_SEED)
        found = [
            self._bound(part, draws, generator)
            for part in images.split(max(1, ROWS // (draws * self.config.models)))
        ]
        return torch.cat(found, 1)

    def _bound(self, images: Tensor, draws: int, generator: torch.Generator) -> Tensor:
        x = binarised(images, generator).expand(self.config.models, -1, -1)
        q = self.vae.posterior(x)
        z = q.sample((draws,), generator=generator)
        weight = self.vae.log_likelihood(z, x) - self.vae.log_ratio(z, q)
        return weight.logsumexp(0) - math.log(draws)

    def _measured(self, bounds: Mapping[str, Tensor]) -> Evaluation:
        """Return means over models and images, with the standard error between models.

        With one model it is that between images. The details are each model's means.
        """
        figures, errors, details = {}, {}, {}
        for name, bound in bounds.items():
            each = bound.double().mean(1)
            among = each if len(each) > 1 else bound[0].double()
            figures[name] = each.mean().item()
            errors[name] = (among.std() / math.sqrt(len(among))).item()
            details[name] = each.tolist()
        return Evaluation(figures, errors, details)

    def report(self, before: Evaluation, after: Evaluation) -> str:
        """Say what was trained, how the models differ, and what an update evaluates."""
        return report(self.config, self.images, after, len(self.train))

    def save(self, folder: Path, before: Evaluation, after: Evaluation) -> None:
        """Write each model's figures."""
        write_text(folder / "models.json", to_json({"after": after.details}))


def load(data: str) -> Images:
    """Return the images that `--data` means.

    Raises:
        ImportError: where scikit-learn is missing.
        InputError: for a folder that does not hold them.
    """
    if data == "digits":
        return digits()
    return mnist(fetch_mnist(CACHE) if data == "mnist" else data)


def binarised(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return bits, float32: 1 with probability v / 255 for a pixel v, [..., pixels]."""
    u = torch.rand(images.shape, generator=generator, device=images.device)
    return (255 * u < images).float()
