"""Knowledge distillation: a student learns from a teacher's soft targets (Hinton et al. 2015, arXiv 1503.02531).

    loss = student_wt * loss + distill_wt * T^2 * KL(softmax(teacher / T) || softmax(student / T))
         + hidden_wt * difference of hidden states

T is the temperature. The factor T^2 (section 2 of the paper) keeps the soft targets' gradients of one size when T
changes; the divergence is the mean over the batch. Logits are (..., classes). See `hidden_states` for the last term.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from raydistill.compression.early_exit import exits
from raydistill.compression.hidden_states import HiddenStates, check_hidden
from raydistill.compression.policies.base import Policy, Step
from raydistill.compression.rates import PolicyTime
from raydistill.errors import ABSENT, ConfigError, Fault


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 * KL(teacher || student) of logits softened by T, in float32, mean over all rows."""
    soft = functional.log_softmax(student.float().flatten(0, -2) / temperature, dim=-1)
    target = functional.log_softmax(teacher.float().flatten(0, -2) / temperature, dim=-1)
    return functional.kl_div(soft, target, reduction="batchmean", log_target=True) * temperature**2


def check_weights(temperature: float, distill_wt: float, student_wt: float, teacher_wt: float) -> None:
    """Raises:
    ConfigError: a weight is negative, the temperature is not above 0, or the teacher is to be trained.
    """
    faults = []
    named = {"temperature": temperature, "distill_wt": distill_wt, "student_wt": student_wt, "teacher_wt": teacher_wt}
    for name, value in named.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not number or value < 0 or (name == "temperature" and value == 0):
            bound = "above 0" if name == "temperature" else "from 0 up"
            faults.append(Fault(f"distillation.{name}", f"must be a number {bound}", value))
        elif name == "teacher_wt" and value != 0:
            way_out = "train the teacher on its own first"
            faults.append(Fault(f"distillation.{name}", "must be 0: the teacher is not trained", value, way_out))
    if faults:
        raise ConfigError(*faults)


def final_logits(output: object) -> Tensor:
    """The logits of a model's (last) classifier."""
    return exits(output)[-1]


class KnowledgeDistillationPolicy(Policy):
    """Runs the teacher on every minibatch that the student sees, and adds its loss before the backward pass.

    student: the module that the training loop calls: the wrapper itself where that is `DistributedDataParallel` or the
        result of `torch.compile`. A hook sees its inputs and its output, between `on_minibatch_begin` and
        `before_backward` only, and there only where gradients are recorded: an evaluation in between is not distilled.
    teacher: takes the same inputs on the same device; it is put in eval mode, and runs without gradients in the
        student's autocast context.
    distill_wt, student_wt: weights of the soft targets' loss and of the loss that the policy is handed; that one
        holds what policies before it have added, regularizers for example. teacher_wt: 0, the teacher is not trained.
    logits: picks the logits from either model's output. hidden: the student's modules whose states are held against
        those of a module of the teacher's, by name; hidden_wt: what that counts; hidden_loss: see `HiddenStates`.

    The teacher is in no saved state: a resumed run is handed the same one again.

    Raises:
        ConfigError: weights that cannot be; later, a teacher with other classes, or a student that was not run.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        temperature: float = 1.0,
        distill_wt: float = 0.5,
        student_wt: float = 0.5,
        teacher_wt: float = 0.0,
        logits: Callable[[object], Tensor] = final_logits,
        hidden: Mapping[str, str] | None = None,
        hidden_wt: float = 1.0,
        hidden_loss: str = "mse",
    ) -> None:
        check_weights(temperature, distill_wt, student_wt, teacher_wt)
        wrong = check_hidden(hidden or {}, hidden_wt, hidden_loss)
        if wrong:
            raise ConfigError(*wrong)
        if any(module is student for module in teacher.modules()) or any(m is teacher for m in student.modules()):
            raise ConfigError(Fault("distillation.teacher", "is the student itself", ABSENT, "give a copy of it"))
        self.temperature, self.distill_wt, self.student_wt = temperature, distill_wt, student_wt
        self.teacher = teacher
        self._student, self._logits = student, logits
        self._hidden = HiddenStates(student, teacher, hidden, hidden_loss) if hidden else None
        self.hidden_wt = hidden_wt
        self._handle: RemovableHandle | None = None
        self._seen: tuple[Tensor, Tensor] | None = None

    def on_epoch_begin(self, when: PolicyTime) -> None:
        self.teacher.eval()

    def on_minibatch_begin(self, step: Step) -> None:
        self._seen = None
        if self._handle is None:
            self._handle = self._student.register_forward_hook(self._watch, with_kwargs=True)
        if self._hidden is not None:
            self._hidden.listen()

    def before_backward(self, step: Step, loss: Tensor) -> Tensor:
        self._release()
        if self._seen is None:
            way_out = "hand it the module that the loop calls, wrapper included"
            raise ConfigError(Fault("distillation.student", "was not run in this minibatch", ABSENT, way_out))
        (student, teacher), self._seen = self._seen, None
        if student.shape != teacher.shape:
            rule = f"must give outputs of the student's shape {tuple(student.shape)}"
            way_out = "use a teacher of the same classes"
            raise ConfigError(Fault("distillation.teacher", rule, tuple(teacher.shape), way_out))
        soft = distillation_loss(student, teacher, self.temperature)
        loss = self.student_wt * loss + self.distill_wt * soft
        return loss if self._hidden is None else loss + self.hidden_wt * self._hidden.loss()

    def before_parameter_optimization(self, step: Step) -> None:
        if self._hidden is not None:
            self._hidden.step()

    def on_epoch_end(self, when: PolicyTime, metrics: Mapping[str, float]) -> None:
        self._release()

    def _watch(self, module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], output: object) -> None:
        if not torch.is_grad_enabled():
            return
        with torch.no_grad():
            target = self._logits(self.teacher(*args, **kwargs))
        self._seen = (self._logits(output), target)

    def _release(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
        if self._hidden is not None:
            self._hidden.release()

    def state_dict(self) -> dict[str, object]:
        return {} if self._hidden is None else self._hidden.state_dict()

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        if self._hidden is not None:
            self._hidden.load_state_dict(state)
