// The empty Python module whose import registers the ops, with what `pgest doctor` asks for.
// Limited API only, so that one binary serves every Python.

#include <Python.h>

#include "kernels/common.h"

namespace {

PyObject* isa(PyObject*, PyObject*) { return PyUnicode_FromString(pgest::cpu_isa()); }

PyObject* cuda(PyObject*, PyObject*) {
#if defined(PGEST_CUDA)
  Py_RETURN_TRUE;
#else
  Py_RETURN_FALSE;
#endif
}

PyMethodDef methods[] = {
    {"isa", isa, METH_NOARGS, "The instruction set that the CPU kernels picked on this machine."},
    {"cuda", cuda, METH_NOARGS, "Whether CUDA kernels were built in."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1, methods,
                          nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__C(void) { return PyModule_Create(&definition); }
