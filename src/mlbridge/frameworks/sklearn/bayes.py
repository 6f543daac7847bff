"""Naive Bayes: joint log likelihoods, softmax of them, and the first greatest."""

from __future__ import annotations

from typing import Any

import numpy as np

from .emitter import Emitter, Frame, class_name, emits

_ALL = ("GaussianNB", "MultinomialNB", "ComplementNB", "BernoulliNB", "CategoricalNB")


def _likelihood(e: Emitter, est: Any, frame: Frame) -> str:
    name = class_name(est)
    x = e.matrix(frame)
    if name == "GaussianNB":
        columns = []
        for k in range(len(est.classes_)):
            start = np.log(est.class_prior_[k]) - 0.5 * np.sum(np.log(2.0 * np.pi * est.var_[k]))
            square = e.op("Div", e.op("Pow", e.op("Sub", x, est.theta_[k]), 2.0), est.var_[k])
            columns.append(e.op("Sub", start, e.op("Mul", 0.5, e.reduce("Sum", square))))
        return e.graph.concat(columns)
    if name == "CategoricalNB":
        return _categorical(e, est, x, frame.width)
    if name == "BernoulliNB":
        if est.binarize is not None:
            x = e.graph.cast(e.op("Greater", x, float(est.binarize)), "float64")
        negative = np.log(1 - np.exp(est.feature_log_prob_))
        return e.linear(x, est.feature_log_prob_ - negative, est.class_log_prior_ + negative.sum(axis=1))
    prior = est.class_log_prior_ if name == "MultinomialNB" or len(est.classes_) == 1 else None
    return e.linear(x, est.feature_log_prob_, prior)


def _categorical(e: Emitter, est: Any, x: str, width: int) -> str:
    """Sum table rows; the library truncates numbers to integers and refuses those beyond the table: NaN here."""
    total = None
    for j in range(width):
        table = np.asarray(est.feature_log_prob_[j]).T
        table = np.concatenate([table, np.full((1, table.shape[1]), np.nan)])
        at = e.graph.cast(e.flat(e.column(Frame.of(x, width), j)), "int64")
        outside = e.op("Or", e.op("Less", at, np.int64(0)), e.op("GreaterOrEqual", at, np.int64(len(table) - 1)))
        part = e.op("Gather", table, e.op("Where", outside, np.int64(len(table) - 1), at), axis=0)
        total = part if total is None else e.op("Add", total, part)
    return e.op("Add", total, np.asarray(est.class_log_prior_))


@emits("predict", *_ALL)
def label(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the class of the greatest joint likelihood."""
    return e.argmax(_likelihood(e, est, frame))


@emits("predict_proba", *_ALL)
def proba(e: Emitter, est: Any, frame: Frame) -> str:
    """Emit the likelihoods' softmax."""
    return e.softmax(_likelihood(e, est, frame))
