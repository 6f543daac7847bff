"""Kernel machines: support vectors, kernel ridge, Gaussian processes, kernel PCA, Nystroem."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import ConversionError
from .emitter import Emitter, Frame, class_name, emits
from .scalers import center_kernel, piecewise


def pairwise(e: Emitter, x: str, points: Any, kernel: Any, gamma: Any = None, coef0: Any = 1, degree: Any = 3) -> str:
    """Emit k(x, p) for every stored point, ("rows", points); defaults are scikit-learn's pairwise ones."""
    points = np.asarray(points.toarray() if hasattr(points, "toarray") else points, dtype=np.float64)
    gamma = 1.0 / points.shape[1] if gamma is None else float(gamma)
    if kernel == "linear":
        return e.linear(x, points)
    if kernel in ("rbf", "laplacian"):
        d = e.distances(x, points, "sqeuclidean" if kernel == "rbf" else "manhattan")
        return e.op("Exp", e.op("Mul", d, -gamma))
    if kernel == "cosine":
        norm = e.op("Sqrt", e.reduce("SumSquare", x))
        length = np.linalg.norm(points, axis=1, keepdims=True)
        unit = points / np.where(length == 0, 1.0, length)
        return e.linear(e.op("Div", x, e.op("Where", e.op("Equal", norm, 0.0), 1.0, norm)), unit)
    if kernel in ("poly", "polynomial", "sigmoid"):
        inner = e.op("Add", e.op("Mul", e.linear(x, points), gamma), float(coef0))
        return e.op("Tanh", inner) if kernel == "sigmoid" else e.op("Pow", inner, float(degree))
    raise ConversionError(f"the kernel {kernel!r} has no ONNX form here", hint="use linear, poly, rbf, sigmoid, laplacian or cosine")


# ---------------------------------------------------------------- support vector machines


def _dense(value: Any) -> np.ndarray:
    return np.asarray(value.toarray() if hasattr(value, "toarray") else value, dtype=np.float64)


def _kernel(e: Emitter, est: Any, frame: Frame) -> str:
    if est.kernel == "precomputed" or callable(est.kernel):
        raise ConversionError(
            f"{type(est).__name__}: a {'precomputed' if est.kernel == 'precomputed' else 'Python'} kernel has no ONNX form"
        )
    return pairwise(e, e.matrix(frame), est.support_vectors_, est.kernel, est._gamma, est.coef0, est.degree)


def _pairs(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit libsvm's decision of each pair of classes, ("rows", pairs)."""
    coef, n = _dense(est._dual_coef_), len(est.classes_)
    ends = np.cumsum([0, *est._n_support])
    columns = []
    for i in range(n):
        for j in range(i + 1, n):
            w = np.zeros(coef.shape[1])
            w[ends[i] : ends[i + 1]] = coef[j - 1, ends[i] : ends[i + 1]]
            w[ends[j] : ends[j + 1]] = coef[i, ends[j] : ends[j + 1]]
            columns.append(w)
    return e.linear(_kernel(e, est, frame), np.array(columns), np.asarray(est._intercept_))


def votes(e: Emitter, wins: str, confidences: str, n: int) -> str:
    """Emit one-vs-one votes plus bounded confidences: `wins` is 1 where the second class of a pair wins."""
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    first, second = np.zeros((len(pairs), n)), np.zeros((len(pairs), n))
    for k, (i, j) in enumerate(pairs):
        first[k, i], second[k, j] = 1.0, 1.0
    count = e.op("Add", e.op("MatMul", wins, second), e.op("MatMul", e.op("Sub", 1.0, wins), first))
    total = e.op("MatMul", confidences, second - first)
    return e.op("Add", count, e.op("Div", total, e.op("Mul", 3.0, e.op("Add", e.op("Abs", total), 1.0))))


@emits("decision_function", "SVC", "NuSVC")
def decide_svc(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the decision in the shape the estimator has."""
    dec = _pairs(e, est, frame)
    if len(est.classes_) == 2:
        return e.flat(e.op("Neg", dec))
    if est.decision_function_shape == "ovo":
        return dec
    return votes(e, e.graph.cast(e.op("Less", dec, 0.0), "float64"), e.op("Neg", dec), len(est.classes_))


@emits("predict", "SVC", "NuSVC")
def label_svc(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit libsvm's vote, or the greatest decision where ties are broken."""
    n = len(est.classes_)
    if est.break_ties and est.decision_function_shape == "ovr" and n > 2:
        return e.argmax(e.decision(est, frame))
    dec = _pairs(e, est, frame)
    if n == 2:
        return e.graph.cast(e.op("LessOrEqual", e.flat(dec), 0.0), "int64")
    wins = e.graph.cast(e.op("LessOrEqual", dec, 0.0), "float64")
    return e.argmax(votes(e, wins, e.op("Mul", wins, 0.0), n))


@emits("predict_proba", "SVC", "NuSVC")
def proba_svc(e: Emitter, est: Any, frame: Frame) -> str:
    """Refuse: libsvm couples pairwise probabilities with an iteration of its own."""
    raise ConversionError(
        f"{type(est).__name__}(probability=True) couples probabilities by libsvm's own iteration",
        hint="wrap it in CalibratedClassifierCV instead, or use via='native'",
    )


@emits("predict", "SVR", "NuSVR")
def predict_svr(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the kernel expansion."""
    return e.flat(e.linear(_kernel(e, est, frame), _dense(est._dual_coef_), est._intercept_))


@emits("decision_function", "OneClassSVM")
def decide_one_class(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the kernel expansion."""
    return e.flat(e.linear(_kernel(e, est, frame), _dense(est._dual_coef_), est._intercept_))


@emits("predict", "OneClassSVM")
def label_one_class(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit 1 for inliers: libsvm asks for a decision above zero."""
    return e.graph.cast(e.op("Greater", e.decision(est, frame), 0.0), "int64")


# ---------------------------------------------------------------- kernels as features


@emits("predict", "KernelRidge")
def predict_ridge(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the kernel expansion."""
    k = pairwise(e, e.matrix(frame), est.X_fit_, est.kernel, est.gamma, est.coef0, est.degree)
    dual = np.asarray(est.dual_coef_, dtype=np.float64)
    out = e.op("MatMul", k, dual.reshape(len(dual), -1))
    return e.flat(out) if dual.ndim == 1 else out


@emits("transform", "Nystroem")
def nystroem(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit the normalised kernel to the chosen points."""
    if est.kernel_params or callable(est.kernel):
        raise ConversionError("Nystroem: kernel_params or a Python kernel have no ONNX form here")
    defaults = {"coef0": 1 if est.coef0 is None else est.coef0, "degree": 3 if est.degree is None else est.degree}
    k = pairwise(e, e.matrix(frame), est.components_, est.kernel, est.gamma, **defaults)
    return e.linear(k, est.normalization_), len(est.normalization_)


@emits("transform", "KernelPCA")
def kernel_pca(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit the centred kernel on the scaled eigenvectors."""
    if est.kernel == "precomputed":
        k = e.matrix(frame)
    else:
        k = pairwise(e, e.matrix(frame), est.X_fit_, est.kernel, est.gamma_, est.coef0, est.degree)
    values = np.asarray(est.eigenvalues_)
    with np.errstate(all="ignore"):
        alphas = np.where(values != 0, est.eigenvectors_ / np.sqrt(values), 0.0)
    return e.op("MatMul", center_kernel(e, est._centerer, k), alphas), len(values)


# ---------------------------------------------------------------- Gaussian processes


def process_kernel(e: Emitter, x: str, kernel: Any, points: np.ndarray) -> str:
    """Emit a Gaussian process kernel between new rows and the training rows."""
    name = class_name(kernel)
    if name in ("Sum", "Product"):
        a, b = process_kernel(e, x, kernel.k1, points), process_kernel(e, x, kernel.k2, points)
        return e.op("Add" if name == "Sum" else "Mul", a, b)
    if name == "Exponentiation":
        return e.op("Pow", process_kernel(e, x, kernel.kernel, points), float(kernel.exponent))
    if name == "ConstantKernel":
        return e.per_row(x, np.full(len(points), kernel.constant_value))
    if name == "WhiteKernel":
        return e.per_row(x, np.zeros(len(points)))
    if name == "DotProduct":
        return e.op("Add", e.linear(x, points), float(kernel.sigma_0) ** 2)
    if name in ("RBF", "Matern"):
        scale = np.asarray(kernel.length_scale, dtype=np.float64)
        d = e.distances(e.op("Div", x, scale), points / scale, "sqeuclidean")
        return e.op("Exp", e.op("Mul", d, -0.5)) if name == "RBF" else _matern(e, d, kernel.nu)
    if name == "RationalQuadratic":
        d = e.distances(x, points, "sqeuclidean")
        return e.op("Pow", e.op("Add", 1.0, e.op("Div", d, 2 * kernel.alpha * kernel.length_scale**2)), -float(kernel.alpha))
    if name == "ExpSineSquared":
        wave = e.op("Sin", e.op("Mul", e.distances(x, points), np.pi / kernel.periodicity))
        return e.op("Exp", e.op("Mul", e.op("Mul", wave, wave), -2.0 / kernel.length_scale**2))
    raise ConversionError(f"the Gaussian process kernel {name} has no ONNX form here")


def _matern(e: Emitter, square: str, nu: float) -> str:
    if nu == np.inf:
        return e.op("Exp", e.op("Mul", square, -0.5))
    d = e.op("Sqrt", square)
    if nu == 0.5:
        return e.op("Exp", e.op("Neg", d))
    if nu not in (1.5, 2.5):
        raise ConversionError(f"Matern(nu={nu}) needs a Bessel function", hint="use nu 0.5, 1.5, 2.5 or inf")
    k = e.op("Mul", d, np.sqrt(2 * nu))
    factor = e.op("Add", 1.0, k)
    if nu == 2.5:
        factor = e.op("Add", factor, e.op("Div", e.op("Mul", k, k), 3.0))
    return e.op("Mul", factor, e.op("Exp", e.op("Neg", k)))


@emits("predict", "GaussianProcessRegressor")
def predict_process(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the posterior mean."""
    alpha = np.asarray(est.alpha_, dtype=np.float64)
    k = process_kernel(e, e.matrix(frame), est.kernel_, np.asarray(est.X_train_, dtype=np.float64))
    out = e.op("MatMul", k, alpha.reshape(len(alpha), -1))
    out = e.op("Add", e.op("Mul", out, np.atleast_1d(est._y_train_std)), np.atleast_1d(est._y_train_mean))
    return e.flat(out) if alpha.ndim == 1 or alpha.shape[1] == 1 else out


@emits("predict", "_BinaryGaussianProcessClassifierLaplace")
def label_laplace(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the sign of the latent mean."""
    k = process_kernel(e, e.matrix(frame), est.kernel_, np.asarray(est.X_train_))
    latent = e.linear(k, (est.y_train_ - est.pi_)[None])
    return e.graph.cast(e.op("Greater", e.flat(latent), 0.0), "int64")


@emits("predict_proba", "_BinaryGaussianProcessClassifierLaplace")
def proba_laplace(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the logistic integrated over the latent Gaussian, by the library's five error functions."""
    from scipy.linalg import solve_triangular
    from scipy.special import erf

    from sklearn.gaussian_process import _gpc

    points = np.asarray(est.X_train_)
    x = e.matrix(frame)
    k = process_kernel(e, x, est.kernel_, points)
    mean = e.linear(k, (est.y_train_ - est.pi_)[None])
    solve = solve_triangular(est.L_, np.diag(est.W_sr_), lower=True)
    v = e.linear(k, solve)
    variance = e.op("Sub", _diagonal(e, x, est.kernel_), e.reduce("SumSquare", v))
    alpha = e.op("Div", 0.5, variance)
    lambdas, coefs = _gpc.LAMBDAS.ravel(), _gpc.COEFS.ravel()
    z = e.op("Mul", e.op("Mul", mean, lambdas[None]), e.op("Sqrt", e.op("Div", alpha, e.op("Add", alpha, (lambdas**2)[None]))))
    size = e.op("Abs", z)
    ratio = piecewise(e, size, lambda t: np.where(t == 0, 2 / np.sqrt(np.pi), erf(t) / np.where(t == 0, 1.0, t)), 0.0, 6.0, 24)
    error = e.op("Where", e.op("GreaterOrEqual", size, 6.0), e.op("Sign", z), e.op("Mul", z, ratio))
    half = e.op("Div", e.op("Sqrt", e.op("Div", np.pi, alpha)), e.op("Mul", 2.0, e.op("Sqrt", e.op("Mul", variance, 2 * np.pi))))
    p = e.op("Add", e.reduce("Sum", e.op("Mul", e.op("Mul", half, error), coefs[None])), 0.5 * coefs.sum())
    return e.two_columns(p)


def _diagonal(e: Emitter, x: str, kernel: Any) -> str:
    """Emit k(x, x), ("rows", 1)."""
    name = class_name(kernel)
    if name in ("Sum", "Product"):
        return e.op("Add" if name == "Sum" else "Mul", _diagonal(e, x, kernel.k1), _diagonal(e, x, kernel.k2))
    if name == "Exponentiation":
        return e.op("Pow", _diagonal(e, x, kernel.kernel), float(kernel.exponent))
    if name == "DotProduct":
        return e.op("Add", e.reduce("SumSquare", x), float(kernel.sigma_0) ** 2)
    value = {"ConstantKernel": "constant_value", "WhiteKernel": "noise_level"}.get(name)
    return e.per_row(x, [1.0 if value is None else getattr(kernel, value)])


def _processes(method: str) -> Any:
    def emit(e: Emitter, est: Any, frame: Frame) -> Any:
        return e.call(est.base_estimator_, method, frame)

    return emit


for _method in ("predict", "predict_proba"):
    emits(_method, "GaussianProcessClassifier")(_processes(_method))
