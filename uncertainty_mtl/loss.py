"""The multi-task loss: one head per task, matched by name, and the sum of their likelihoods."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from uncertainty_mtl._checks import check_tasks
from uncertainty_mtl.heads import GaussianHead, LaplaceHead, ScaledSoftmaxHead, TaskHead

LIKELIHOODS: dict[str, Callable[[], TaskHead]] = {
    "gaussian": GaussianHead,
    "laplace": LaplaceHead,
    "softmax": ScaledSoftmaxHead,
}
"""The heads that a name stands for, each with its default settings."""

# A task's value is None where it has no labels, and a mapping again where it is a group of tasks.
ByTask: TypeAlias = Mapping[str, Any]


class MultiTaskLoss(NamedTuple):
    """What :class:`UncertaintyWeightedLoss` returns.

    Attributes:
        total: The sum over tasks, 0-dim: call ``.backward()`` on it.
        tasks: Each task's negative log-likelihood, 0-dim, differentiable; they sum to ``total``.
    """

    total: Tensor
    tasks: dict[str, Tensor]


class UncertaintyWeightedLoss(nn.Module):
    r"""Sum of the tasks' negative log-likelihoods, each with a scale that is learned.

    .. math:: \mathcal{L} = \sum_k w(s_k)\, L_k + \tfrac12 s_k, \qquad s_k = \log \sigma_k^2,

    with the base loss :math:`L_k` (mean squared error, mean absolute error, cross-entropy) and
    the weight :math:`w` of each task's head. At its optimum each weight is :math:`c_k/L_k`, with
    :math:`c` = 1/2, 1 and 1/2: what is minimised is :math:`\sum_k c_k \log L_k`, which does not
    depend on the units of any task.

    The total may be negative, and no harm is done: a density may exceed 1.

    Args:
        heads: One head per task, by name: a :class:`TaskHead`, one of the names ``"gaussian"``,
            ``"laplace"`` and ``"softmax"``, or another ``UncertaintyWeightedLoss`` for a group of
            tasks, whose arguments and results are then mappings themselves.
        share_heads: Whether one head may serve, and learn one scale for, several tasks.

    Raises:
        TypeError: If a head is something else.
        ValueError: If there is no task, a name or likelihood is unknown or unusable, or one head
            is given twice without ``share_heads``.

    Example:
        >>> loss_fn = UncertaintyWeightedLoss({"depth": LaplaceHead(), "normals": GaussianHead()})
        >>> predictions = {"depth": torch.zeros(2, 3), "normals": torch.zeros(2, 3)}
        >>> targets = {"depth": torch.ones(2, 3), "normals": torch.ones(2, 3)}
        >>> total, tasks = loss_fn(predictions, targets)
        >>> sorted((name, round(loss.item(), 4)) for name, loss in tasks.items())
        [('depth', 1.4142), ('normals', 0.5)]

        Losses computed elsewhere go in as they are:

        >>> loss_fn = UncertaintyWeightedLoss({"depth": "laplace", "normals": "gaussian"})
        >>> loss_fn({"depth": torch.tensor(1.0), "normals": torch.tensor(1.0)}).total.item()
        1.9142135381698608

    References:
        Kendall, Gal and Cipolla, *Multi-Task Learning Using Uncertainty to Weigh Losses for Scene
        Geometry and Semantics*, CVPR 2018.
    """

    def __init__(
        self,
        heads: Mapping[str, "TaskHead | UncertaintyWeightedLoss | str"],
        *,
        share_heads: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(heads, Mapping):
            raise TypeError(
                "`heads` should be a mapping from task name to head, such as {'depth': "
                f"LaplaceHead()}}. Found {type(heads).__name__}."
            )
        if not heads:
            raise ValueError("`heads` should hold at least one task. Found none.")
        self.heads = nn.Module()
        self._module_names: dict[str, str] = {}
        for task, head in heads.items():
            self._module_names[task] = _module_name(task)
            self.heads.add_module(self._module_names[task], _as_head(task, head))
        self._check_unambiguous(share_heads)

    def forward(
        self,
        predictions: "ByTask | Sequence[Tensor | None] | Tensor",
        targets: ByTask | None = None,
        masks: ByTask | None = None,
    ) -> MultiTaskLoss:
        """Return the total and each task's negative log-likelihood.

        Args:
            predictions: What the network predicts, by task, in any order. Without ``targets``:
                each task's already reduced loss, by task, or as a sequence or a stacked 1-D tensor
                in the order of the constructor.
            targets: The target of each task, by task. ``None`` for a task without labels in this
                step (without ``targets``: ``None`` for its loss): it adds exactly 0, its scale and
                its prediction get a zero gradient, and the graph stays connected. The momentum of
                the optimizer may still move its scale.
            masks: Which elements are used, by task; tasks may be left out.

        Under ``torch.compile`` every pattern of ``None`` is a graph of its own; a mask that is
        all False does the same without compiling again.

        Raises:
            TypeError: If a value has another type than its head expects.
            ValueError: If the tasks are not exactly those of the constructor, or shapes do not fit.
        """
        if targets is None:
            if masks is not None:
                raise ValueError(
                    "`masks` should come with `targets`. Found `masks` alone: an already reduced "
                    "loss has no elements left to mask."
                )
            losses = check_tasks("predictions", self._by_name(predictions), self)
            return _add_up({task: _call(task, _weigh, self[task], losses[task]) for task in self})

        predictions = check_tasks("predictions", predictions, self)
        targets = check_tasks("targets", targets, self)
        masks = check_tasks("masks", {} if masks is None else masks, self, may_be_left_out=True)
        return _add_up(
            {
                task: _call(
                    task, _score, self[task], predictions[task], targets[task], masks.get(task)
                )
                for task in self
            }
        )

    def sigmas(self) -> dict[str, Tensor]:
        """Return each task's sigma, detached, without waiting for the device.

        The tasks of a group come as ``"group.task"``.
        """
        return {task: head.sigma for task, head in self._heads()}

    def weights(self) -> dict[str, Tensor]:
        """Return the factor now multiplying each task's base loss, as :meth:`sigmas` does."""
        return {task: head.weight for task, head in self._heads()}

    def param_groups(self, lr: float | None = None) -> list[dict[str, Any]]:
        """Return the parameter groups that an optimizer needs to learn the scales.

        Weight decay is 0 in them: it would pull every sigma towards 1, and the weights with it.

        Args:
            lr: Learning rate of the scales; ``None`` takes the optimizer's default.

        Returns:
            A list to be unpacked among the optimizer's groups, empty if nothing is learned.

        Example:
            >>> model, loss_fn = nn.Linear(3, 1), UncertaintyWeightedLoss({"depth": "laplace"})
            >>> groups = [{"params": model.parameters()}, *loss_fn.param_groups(lr=1e-2)]
            >>> optimizer = torch.optim.SGD(groups, lr=2.5e-3, weight_decay=1e-4)
            >>> loss_fn.check_optimizer(optimizer)
        """
        group: dict[str, Any] = {"params": list(self.parameters()), "weight_decay": 0.0}
        if lr is not None:
            group["lr"] = lr
        return [group] if group["params"] else []

    def check_optimizer(self, optimizer: Optimizer) -> None:
        """Raise unless the optimizer trains every learnable scale, and decays none.

        A scale that is in no group keeps its weight for ever, and nothing else would say so.

        Raises:
            ValueError: If a learnable ``log_var`` is in no group, or in one with weight decay.
        """
        decay = {
            id(parameter): group.get("weight_decay", 0)
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        learned = [
            (task, head.log_var) for task, head in self._heads() if head.log_var.requires_grad
        ]
        absent = [task for task, log_var in learned if id(log_var) not in decay]
        decayed = [task for task, log_var in learned if decay.get(id(log_var), 0) != 0]
        if absent or decayed:
            raise ValueError(
                "The optimizer should hold the `log_var` of every task, without weight decay. Found"
                + (f" no `log_var` of {absent} in its groups" if absent else "")
                + (" and" if absent and decayed else "")
                + (f" weight decay on that of {decayed}" if decayed else "")
                + ". Build it from `[{'params': model.parameters()}, *loss_fn.param_groups()]`."
            )

    def reset_parameters(self) -> None:
        """Put every sigma back to where it started."""
        for _, head in self._heads():
            head.reset_parameters()

    def __getitem__(self, task: str) -> "TaskHead | UncertaintyWeightedLoss":
        if task not in self._module_names:
            raise ValueError(f"The tasks of this loss are {list(self)}. Found {task!r}.")
        head: TaskHead | UncertaintyWeightedLoss = getattr(self.heads, self._module_names[task])
        return head

    def __iter__(self) -> Iterator[str]:
        return iter(self._module_names)

    def __len__(self) -> int:
        return len(self._module_names)

    def _items(self) -> "list[tuple[str, TaskHead | UncertaintyWeightedLoss]]":
        return [(task, self[task]) for task in self]

    def _heads(self) -> Iterator[tuple[str, TaskHead]]:
        # The heads themselves, those of groups under "group.task".
        for task, head in self._items():
            if isinstance(head, UncertaintyWeightedLoss):
                for name, inner in head._heads():
                    yield f"{task}.{name}", inner
            else:
                yield task, head

    def _check_unambiguous(self, share_heads: bool) -> None:
        names = [name for name, _ in self._heads()]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"Every task should have a name of its own, `group.task` within a group. Found "
                f"{twice} more than once. Rename a task or the group."
            )
        owner: dict[int, str] = {}
        for task, head in self._items():
            for module in head.modules():
                if isinstance(module, TaskHead):
                    first = owner.setdefault(id(module), task)
                    if first != task and not share_heads:
                        raise ValueError(
                            f"Every task should have a head of its own. Found one head under "
                            f"{first!r} and {task!r}, which would share one sigma. Build a head "
                            "for each, or say that it is meant with `share_heads=True`."
                        )

    def _by_name(self, losses: object) -> object:
        # Already reduced losses also come as a sequence or a stacked tensor, in our order.
        if isinstance(losses, Tensor):
            losses = losses.unbind() if losses.ndim == 1 else losses
        if not isinstance(losses, Sequence) or isinstance(losses, str):
            return losses
        if len(losses) != len(self):
            raise ValueError(
                f"A sequence of losses should have one entry per task, {len(self)} for "
                f"{list(self)}. Found {len(losses)}. A task without labels in this step is passed "
                "as None."
            )
        return dict(zip(self, losses, strict=True))


def _as_head(task: str, head: object) -> "TaskHead | UncertaintyWeightedLoss":
    if isinstance(head, TaskHead | UncertaintyWeightedLoss):
        return head
    if isinstance(head, str):
        if head not in LIKELIHOODS:
            raise ValueError(
                f"The likelihood of task {task!r} should be one of {list(LIKELIHOODS)}, or a head. "
                f"Found {head!r}."
            )
        return LIKELIHOODS[head]()
    found = f"the class {head.__name__}" if isinstance(head, type) else type(head).__name__
    raise TypeError(
        f"The head of task {task!r} should be a TaskHead, an UncertaintyWeightedLoss (a group of "
        f"tasks) or one of {list(LIKELIHOODS)}. Found {found}."
        + (" Call it to build a head." if isinstance(head, type) else "")
    )


def _module_name(task: object) -> str:
    """Return the name under which a task's head is registered: its own, wherever that is possible.

    A module's name holds no dot, which separates levels in a ``state_dict``, and hides none of
    the attributes of a module, such as ``type``. Those are written as in a URL: ``a%2Eb``.
    """
    if not isinstance(task, str) or not task:
        raise ValueError(f"Task names should be non-empty strings. Found {task!r}.")
    name = task.replace("%", "%25").replace(".", "%2E")
    if hasattr(nn.Module(), name):
        name = f"%{ord(name[0]):02X}{name[1:]}"
    return name


def _call(task: str, function: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """Return ``function(*inputs)``, whose errors then name the task."""
    try:
        return function(*inputs)
    except TypeError as error:
        raise TypeError(f"Task {task!r}: {error}") from error
    except ValueError as error:
        raise ValueError(f"Task {task!r}: {error}") from error


def _score(
    head: TaskHead | UncertaintyWeightedLoss, prediction: Any, target: Any, mask: Any
) -> Tensor:
    if isinstance(head, UncertaintyWeightedLoss):
        nothing = dict.fromkeys(head)
        prediction = nothing if prediction is None else prediction
        group: MultiTaskLoss = head(prediction, nothing if target is None else target, mask)
        return group.total
    return _connected_zero(head, prediction) if target is None else head(prediction, target, mask)


def _weigh(head: TaskHead | UncertaintyWeightedLoss, loss: Any) -> Tensor:
    if isinstance(head, UncertaintyWeightedLoss):
        group: MultiTaskLoss = head(dict.fromkeys(head) if loss is None else loss)
        return group.total
    return _connected_zero(head) if loss is None else head.weigh(loss)


def _connected_zero(head: TaskHead, prediction: object = None) -> Tensor:
    """Return an exact 0 from which prediction and head receive a zero gradient, not none at all.

    DistributedDataParallel waits for a gradient of every parameter. The sum of an empty slice, not
    a product with 0: a prediction without labels may be infinite or nan, and 0 * nan is nan.
    """
    tensors: list[Tensor] = [head.log_var, *head.parameters()]
    if isinstance(prediction, Tensor):
        tensors.append(prediction)
    return torch.stack([tensor.unsqueeze(0)[:0].sum() for tensor in tensors]).sum()


def _add_up(tasks: dict[str, Tensor]) -> MultiTaskLoss:
    return MultiTaskLoss(torch.stack(list(tasks.values())).sum(), tasks)
