"""What a model does not know: predictions averaged over dropout masks."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Categorical
from torch.nn.modules.dropout import _DropoutNd

from uncertainty_mtl._checks import check_between
from uncertainty_mtl.loss import UncertaintyWeightedLoss
from uncertainty_mtl.task_head import TaskHead


class RegressionUncertainty(NamedTuple):
    """The predictive distribution of a regression, all of the prediction's shape.

    Attributes:
        mean: Mean over the samples, in the units of the target.
        epistemic: Variance of the mean between samples: what more data would explain.
        aleatoric: Mean variance of the noise as the head knows it; 0 without a head.
    """

    mean: Tensor
    epistemic: Tensor
    aleatoric: Tensor


class ClassificationUncertainty(NamedTuple):
    """The predictive distribution of a classification.

    Attributes:
        probability: Mean probability of each class, shape ``(N, C, *)``.
        entropy: Entropy of that mean in nats, shape ``(N, *)``: the total uncertainty.
        mutual_information: The part of it that is disagreement between samples, shape ``(N, *)``:
            what more data would explain.
    """

    probability: Tensor
    entropy: Tensor
    mutual_information: Tensor


def mc_dropout(
    model: nn.Module,
    inputs: Any,
    samples: int = 20,
    heads: "TaskHead | Mapping[str, TaskHead] | UncertaintyWeightedLoss | None" = None,
    *,
    samples_at_once: int | None = None,
) -> Any:
    r"""Return the predictive uncertainty of a model trained with dropout.

    Each sample is a forward pass with other dropout masks. Only dropout layers are stochastic;
    everything else, batch norm too, is in evaluation mode, and the modes of all modules are put
    back whatever happens. With samples :math:`f_t` of a regression,

    .. math:: \text{mean} = \overline{f_t}, \quad \text{epistemic} = \overline{(f_t -
              \overline{f_t})^2}, \quad \text{aleatoric} = \overline{\sigma_t^2},

    and with probabilities :math:`p_t` of a classification, H being the entropy,

    .. math:: \text{probability} = \overline{p_t}, \quad \text{entropy} = H(\overline{p_t}), \quad
              \text{mutual information} = H(\overline{p_t}) - \overline{H(p_t)}.

    Args:
        model: A model with dropout layers (modules; a functional dropout cannot be reached).
        inputs: Its input: a tensor, or a tuple of positional or a dict of keyword arguments. Every
            tensor has the batch as axis 0.
        samples: Number of samples.
        heads: The tasks' heads, or the loss that holds them: they tell which outputs are logits
            and how large the noise is. A single head if the model returns one output. A task
            without a head is a regression without noise.
        samples_at_once: How many samples are computed in one forward pass, as a larger batch;
            all of them by default.

    Returns:
        A :class:`RegressionUncertainty` or :class:`ClassificationUncertainty`; a dict of them by
        task if the model returns a dict.

    Raises:
        ValueError: If the model has no dropout layer, so that all samples would be the same.

    References:
        Gal and Ghahramani, *Dropout as a Bayesian Approximation*, ICML 2016; Kendall and Gal, *What
        Uncertainties Do We Need in Bayesian Deep Learning for Computer Vision?*, NeurIPS 2017.
    """
    check_between("samples", samples, 0)
    check_between("samples_at_once", samples if samples_at_once is None else samples_at_once, 0)
    with torch.no_grad(), _only_dropout_is_stochastic(model):
        outputs = _sample(model, inputs, samples, samples_at_once or samples)
        if not isinstance(outputs[0], Mapping):
            return _summary(outputs, _single_head(heads))
        if isinstance(heads, TaskHead):
            heads = dict.fromkeys(outputs[0], heads)
        by_task = {} if heads is None else {task: heads[task] for task in heads}
        return {
            task: _summary([output[task] for output in outputs], by_task.get(task))
            for task in outputs[0]
        }


def _sample(model: nn.Module, inputs: Any, samples: int, at_once: int) -> list[Any]:
    """Return one output per sample, each as if the model had been called for it alone."""
    outputs = []
    for start in range(0, samples, at_once):
        copies = min(at_once, samples - start)
        repeated = _map(inputs, lambda x: x.repeat(copies, *[1] * (x.ndim - 1)))  # noqa: B023
        if isinstance(repeated, Mapping):
            output = model(**repeated)
        else:
            output = model(*repeated) if isinstance(repeated, tuple) else model(repeated)
        chunk = _map(output, lambda y: y.unflatten(0, (copies, -1)))  # noqa: B023
        outputs += [_map(chunk, lambda y: y[i]) for i in range(copies)]  # noqa: B023
    return outputs


def _summary(outputs: list[Any], head: Any) -> RegressionUncertainty | ClassificationUncertainty:
    if head is None:
        means = torch.stack([y[0] if isinstance(y, tuple) else y for y in outputs])
        return _regression(means, torch.zeros_like(means))
    distributions = [head.distribution(output) for output in outputs]
    if not isinstance(distributions[0], Categorical):
        means = torch.stack([d.mean for d in distributions])
        return _regression(means, torch.stack([d.variance for d in distributions]))
    mean = torch.stack([d.probs for d in distributions]).mean(0)
    # As `log(0) * 0` is a nan, of which the distribution takes care.
    entropies = [_entropy(d) for d in (Categorical(probs=mean), *distributions)]
    mutual_information = entropies[0] - torch.stack(entropies[1:]).mean(0)
    return ClassificationUncertainty(mean.movedim(-1, 1), entropies[0], mutual_information)


def _regression(means: Tensor, variances: Tensor) -> RegressionUncertainty:
    return RegressionUncertainty(means.mean(0), means.var(0, correction=0), variances.mean(0))


def _entropy(distribution: Categorical) -> Tensor:
    entropy: Tensor = distribution.entropy()  # type: ignore[no-untyped-call]
    return entropy


def _single_head(heads: Any) -> TaskHead | None:
    if heads is None or isinstance(heads, TaskHead):
        return heads
    raise ValueError(
        "`heads` should be a single head, or None, for a model that returns one output. Found "
        f"{type(heads).__name__}. Pass the head of that output."
    )


@contextmanager
def _only_dropout_is_stochastic(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    dropouts = [layer for layer in modes if isinstance(layer, _DropoutNd) and layer.p > 0]
    if not dropouts:
        raise ValueError(
            "`model` should hold dropout layers (modules such as `nn.Dropout`, p > 0). Found none, "
            "so all samples would be the same. Train the model with dropout first."
        )
    try:
        model.eval()
        for dropout in dropouts:
            dropout.training = True
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _map(value: Any, function: Any) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {key: _map(part, function) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return tuple(_map(part, function) for part in value)
    return value
