"""Linear projections and other decompositions whose transform is a closed formula."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import ConversionError
from .emitter import Emitter, Frame, emits


@emits("transform", "PCA", "IncrementalPCA")
def pca(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit x @ components - mean @ components, whitened where asked."""
    out = e.linear(e.matrix(frame), est.components_)
    if est.mean_ is not None:
        out = e.op("Sub", out, np.reshape(est.mean_, (1, -1)) @ est.components_.T)
    if est.whiten:
        out = e.op("Div", out, np.maximum(np.sqrt(est.explained_variance_), np.finfo(np.float64).eps))
    return out, len(est.components_)


@emits("transform", "FastICA")
def ica(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit (x - mean) @ components."""
    x = e.matrix(frame)
    return e.linear(e.op("Sub", x, est.mean_) if est.whiten else x, est.components_), len(est.components_)


@emits("transform", "TruncatedSVD", "NeighborhoodComponentsAnalysis", "GaussianRandomProjection", "SparseRandomProjection")
def project(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit x @ components."""
    components = est.components_.toarray() if hasattr(est.components_, "toarray") else est.components_
    return e.linear(e.matrix(frame), components), len(components)


@emits("transform", "FactorAnalysis")
def factors(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit the posterior mean of the factors."""
    w = est.components_ / est.noise_variance_
    covariance = np.linalg.inv(np.eye(len(est.components_)) + w @ est.components_.T)
    return e.op("MatMul", e.linear(e.op("Sub", e.matrix(frame), est.mean_), w), covariance), len(w)


@emits("transform", "SparsePCA", "MiniBatchSparsePCA")
def sparse_pca(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit the ridge regression on the components, which is linear."""
    c = est.components_
    solve = np.linalg.solve(c @ c.T + est.ridge_alpha * np.eye(len(c)), c)
    return e.linear(e.op("Sub", e.matrix(frame), est.mean_), solve), len(c)


@emits("transform", "FeatureAgglomeration")
def agglomerate(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit the mean, largest or least value of each group of columns."""
    x, groups = e.matrix(frame), np.unique(est.labels_)
    if est.pooling_func is np.mean:
        member = (est.labels_[None] == groups[:, None]).astype(np.float64)
        return e.op("Div", e.linear(x, member), member.sum(axis=1)), len(groups)
    kind = {np.max: "Max", np.min: "Min", np.sum: "Sum"}.get(est.pooling_func)
    if kind is None:
        raise ConversionError("FeatureAgglomeration: pooling_func is Python code", hint="use np.mean, np.max, np.min or np.sum")
    parts = [e.reduce(kind, e.op("Gather", x, np.flatnonzero(est.labels_ == k), axis=1)) for k in groups]
    return e.graph.concat(parts), len(groups)


@emits("transform", "BernoulliRBM")
def boltzmann(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit the hidden units' probabilities."""
    return e.logistic(e.linear(e.matrix(frame), est.components_, est.intercept_hidden_)), len(est.components_)


@emits("transform", "TfidfTransformer")
def tfidf(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit weighted counts, normalised."""
    from .scalers import normalizer

    x = e.matrix(frame)
    if est.sublinear_tf:
        zero = e.op("Equal", x, 0.0)
        x = e.op("Where", zero, 0.0, e.op("Add", e.op("Log", e.op("Where", zero, 1.0, x)), 1.0))
    if hasattr(est, "idf_"):
        x = e.op("Mul", x, np.asarray(est.idf_))
    if est.norm is None:
        return x, frame.width
    return normalizer(e, est, Frame.of(x, frame.width))


@emits("transform", "DictionaryLearning", "MiniBatchDictionaryLearning", "SparseCoder")
def sparse_code(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit thresholded projections; the other algorithms iterate until they please."""
    if est.transform_algorithm != "threshold":
        raise ConversionError(
            f"{type(est).__name__}(transform_algorithm={est.transform_algorithm!r}) searches for each row's code",
            hint="use transform_algorithm='threshold', or via='native'",
        )
    dictionary = est.components_ if hasattr(est, "components_") else est.dictionary
    alpha = est.transform_alpha if est.transform_alpha is not None else getattr(est, "alpha", 1.0)
    x = e.linear(e.matrix(frame), dictionary)
    size = e.op("Max", e.op("Sub", e.op("Abs", x), float(alpha)), 0.0)
    code = e.op("Mul", e.op("Sign", x), size)
    if est.positive_code:
        code = e.op("Max", code, 0.0)
    if not est.split_sign:
        return code, len(dictionary)
    return e.graph.concat([e.op("Max", code, 0.0), e.op("Neg", e.op("Min", code, 0.0))]), 2 * len(dictionary)


@emits("transform", "RBFSampler", "SkewedChi2Sampler")
def fourier(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit random Fourier features."""
    x = e.matrix(frame)
    if hasattr(est, "skewedness"):
        x = e.op("Log", e.op("Add", x, float(est.skewedness)))
    projection = e.op("Cos", e.linear(x, est.random_weights_.T, est.random_offset_))
    return e.op("Mul", projection, np.sqrt(2.0 / est.n_components)), len(est.random_offset_)


@emits("transform", "AdditiveChi2Sampler")
def chi2_sampler(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit the sampled chi-squared map; zero stays zero."""
    step = est.sample_interval or {1: 0.8, 2: 0.5, 3: 0.4}[est.sample_steps]
    x = e.matrix(frame)
    zero = e.op("Equal", x, 0.0)
    safe = e.op("Where", zero, 1.0, x)
    parts = [e.op("Sqrt", e.op("Mul", x, float(step)))]
    log = e.op("Mul", e.op("Log", safe), float(step))
    for j in range(1, est.sample_steps):
        factor = e.op("Sqrt", e.op("Div", e.op("Mul", e.op("Mul", 2.0, safe), float(step)), np.cosh(np.pi * j * step)))
        for wave in ("Cos", "Sin"):
            parts.append(e.op("Where", zero, 0.0, e.op("Mul", factor, e.op(wave, e.op("Mul", float(j), log)))))
    return e.graph.concat(parts), frame.width * len(parts)


@emits("transform", "PolynomialCountSketch")
def count_sketch(e: Emitter, est: Any, frame: Frame) -> tuple[str, int]:
    """Emit the product of sketches in the Fourier domain, the transforms as matrices."""
    x, n = e.op("Mul", e.matrix(frame), np.sqrt(est.gamma)), int(est.n_components)
    if est.coef0 != 0:
        x = e.graph.concat([x, e.per_row(x, [np.sqrt(est.coef0)])])
    grid = 2 * np.pi * (np.outer(np.arange(n), np.arange(n)) % n) / n
    real = imaginary = None
    for d in range(est.degree):
        sketch = np.zeros((est.indexHash_.shape[1], n))
        sketch[np.arange(len(sketch)), est.indexHash_[d]] = est.bitHash_[d]
        counts = e.op("MatMul", x, sketch)
        a, b = e.op("MatMul", counts, np.cos(grid)), e.op("MatMul", counts, -np.sin(grid))
        if real is None:
            real, imaginary = a, b
        else:
            real, imaginary = (
                e.op("Sub", e.op("Mul", real, a), e.op("Mul", imaginary, b)),
                e.op("Add", e.op("Mul", real, b), e.op("Mul", imaginary, a)),
            )
    back = e.op("Sub", e.op("MatMul", real, np.cos(grid)), e.op("MatMul", imaginary, np.sin(grid)))
    return e.op("Div", back, float(n)), n
