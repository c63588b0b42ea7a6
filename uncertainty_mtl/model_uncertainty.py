"""How uncertain a model is: predictions averaged over dropout masks."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Categorical
from torch.nn.modules.dropout import _DropoutNd

from uncertainty_mtl._checks import check_count
from uncertainty_mtl.loss import UncertaintyWeightedLoss
from uncertainty_mtl.task_head import TaskHead


class RegressionUncertainty(NamedTuple):
    """The mean prediction of a regression and its two variances, each of the prediction's shape.

    Attributes:
        mean: Mean over the samples, in the units of the target.
        epistemic: Variance of the prediction between samples, in squared units. More training data
            would reduce it.
        aleatoric: Mean variance of the noise that the head has learned, in squared units; 0 without
            a head. More data would not reduce it.
    """

    mean: Tensor
    epistemic: Tensor
    aleatoric: Tensor


class ClassificationUncertainty(NamedTuple):
    """The mean probabilities of a classification, and how uncertain they are.

    Attributes:
        probability: Mean probability of each class, shape ``(N, C, *)``.
        entropy: Total uncertainty: the entropy of that mean in nats, shape ``(N, *)``.
        mutual_information: The part of the entropy that comes from disagreement between samples,
            shape ``(N, *)``. More training data would reduce it.
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
    r"""Return what a model trained with dropout predicts, and how uncertain each prediction is.

    Each sample is a forward pass with new dropout masks. Only dropout layers are in training mode;
    all others, including batch norm, are in evaluation mode. The previous modes are restored, even
    after an error. For samples :math:`f_t` of a regression,

    .. math:: \text{mean} = \overline{f_t}, \quad \text{epistemic} = \overline{(f_t -
              \overline{f_t})^2}, \quad \text{aleatoric} = \overline{\sigma_t^2},

    and for probabilities :math:`p_t` of a classification, with the entropy H,

    .. math:: \text{probability} = \overline{p_t}, \quad \text{entropy} = H(\overline{p_t}), \quad
              \text{mutual information} = H(\overline{p_t}) - \overline{H(p_t)}.

    Args:
        model: A model with dropout layers. They have to be modules: dropout by
            :func:`torch.nn.functional.dropout` cannot be switched on from outside.
        inputs: The model's input: a tensor, a tuple of positional arguments, or a dict of keyword
            arguments. Axis 0 of every tensor is the batch.
        samples: Number of samples.
        heads: The tasks' heads, or the loss that holds them. They tell which outputs are logits and
            how large the noise is. Give a single head if the model returns one output. A task
            without a head is a regression without noise.
        samples_at_once: How many samples one forward pass computes, as a larger batch; all of them
            by default. Fewer take less memory.

    Returns:
        A :class:`RegressionUncertainty` or :class:`ClassificationUncertainty`; a dict of them by
        task if the model returns a dict.

    Raises:
        ValueError: If the model has no dropout layer, so that all samples would be the same.

    Example:
        >>> from uncertainty_mtl import GaussianHead
        >>> model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        >>> head = GaussianHead(init_sigma=2.0)  # or the one that was trained
        >>> result = mc_dropout(model, torch.ones(5, 3), samples=50, heads=head)
        >>> result.mean.shape, bool((result.epistemic > 0).all())
        (torch.Size([5, 1]), True)
        >>> round(result.aleatoric.mean().item(), 4)  # sigma squared
        4.0

    References:
        Gal and Ghahramani, *Dropout as a Bayesian Approximation*, ICML 2016; Kendall and Gal, *What
        Uncertainties Do We Need in Bayesian Deep Learning for Computer Vision?*, NeurIPS 2017.
    """
    check_count("samples", samples)
    check_count("samples_at_once", samples_at_once, or_none="all of them")
    with torch.no_grad(), _only_dropout_is_stochastic(model):
        outputs = _sample(model, inputs, samples, samples_at_once or samples)
        return _by_task(outputs, heads)


def _by_task(outputs: list[Any], heads: Any) -> Any:
    if not isinstance(outputs[0], Mapping):
        return _summary(outputs, _single_head(heads))
    if isinstance(heads, TaskHead):
        heads = dict.fromkeys(outputs[0], heads)
    by_task = {} if heads is None else {task: heads[task] for task in heads}
    return {
        task: _by_task([output[task] for output in outputs], by_task.get(task))
        for task in outputs[0]
    }


def _sample(model: nn.Module, inputs: Any, samples: int, at_once: int) -> list[Any]:
    """Return one output per sample, each as if the model had been called for that sample only."""
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
    # The distribution takes care of log(0) * 0, which is nan.
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
