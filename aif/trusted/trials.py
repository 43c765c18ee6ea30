"""Which releases of a device have passed their trial, which have not, and which ended the process that tried.

Decides what a trial's end means for a release. How it is run is ``model_trial``.

Invariants: the begin of a trial is written down before it, so a release that kills the whole process is given
up after ``MAX_TRIES``, as after as many boots without an accept; a release that was rejected is never tried
again, and is refused before anything is downloaded. Memory is bounded: the oldest verdicts go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, NoReturn

from aif.errors import EngineError, EngineUnavailable, ModelRejected, PSAError, PSAStatus
from aif.trusted.state import BegunTrial, DeviceState, InstalledModel, RejectedRelease, StateFile

MAX_TRIES: Final = 3
"""Trials of one release that may end with the process that runs them."""

_KEPT: Final = 64
_MAX_REASON: Final = 300


class Trials:
    """Trials of one device."""

    def __init__(self, notes: StateFile[DeviceState]) -> None:
        self._notes = notes

    def refuse_rejected(self, component: str, counter: int) -> None:
        """Refuse a release that has failed here.

        Raises:
            ModelRejected: with the reason of then.
        """
        notes = self._notes.load()
        for rejected in notes.rejected:
            if _is_of(rejected, component, counter):
                raise _rejection(component, rejected.reason)
        for trial in notes.trials:
            if _is_of(trial, component, counter) and trial.tries >= MAX_TRIES:
                self._reject(component, counter, f"the device died in each of its {trial.tries} trials")

    def passed(
        self, model: InstalledModel, before: InstalledModel | None, trial: Callable[[], str]
    ) -> InstalledModel:
        """Run the trial of a release; the model with what was found.

        Args:
            model: what is to be installed.
            before: what is installed.
            trial: runs it, see ``model_service.Prove``.

        Raises:
            ModelRejected: it did not pass, and is not tried again.
            AIFError: it could not be tried, and may be again.
        """
        self._begin(model.component, model.counter)
        try:
            found = trial()
        except EngineUnavailable:
            self._forget(model.component, model.counter)
            raise
        except EngineError as error:
            self._reject(model.component, model.counter, str(error))
        except PSAError as error:
            if error.status is not PSAStatus.COMMUNICATION_FAILURE:  # the Security Engine died: of this?
                self._forget(model.component, model.counter)
            raise
        except BaseException:
            self._forget(model.component, model.counter)
            raise
        same_code = before is not None and before.package == model.package
        if before is not None and same_code and before.interface not in {"", found}:
            self._reject(
                model.component, model.counter,
                f"it takes and gives {found}, the release before {before.interface}, for the same AIM",
            )  # fmt: skip
        self._forget(model.component, model.counter)
        return replace(model, interface=found)

    def _begin(self, component: str, counter: int) -> None:
        def change(notes: DeviceState) -> DeviceState:
            tries = next((t.tries for t in notes.trials if _is_of(t, component, counter)), 0)
            others = _without(notes, component, counter)
            begun = BegunTrial(component, counter, tries + 1)
            return replace(others, trials=(*others.trials, begun)[-_KEPT:])

        self._notes.update(change)

    def _forget(self, component: str, counter: int) -> None:
        self._notes.update(lambda notes: _without(notes, component, counter))

    def _reject(self, component: str, counter: int, reason: str) -> NoReturn:
        verdict = RejectedRelease(component, counter, reason[:_MAX_REASON])

        def change(notes: DeviceState) -> DeviceState:
            others = _without(notes, component, counter)
            return replace(others, rejected=(*others.rejected, verdict)[-_KEPT:])

        self._notes.update(change)
        raise _rejection(component, verdict.reason)


def _rejection(component: str, reason: str) -> ModelRejected:
    return ModelRejected(
        f"this release of {component} failed its trial on this device: {reason}",
        hint="the release before stays in force; withdraw this one and publish a better one",
    )


def _without(notes: DeviceState, component: str, counter: int) -> DeviceState:
    return replace(notes, trials=tuple(t for t in notes.trials if not _is_of(t, component, counter)))


def _is_of(entry: BegunTrial | RejectedRelease, component: str, counter: int) -> bool:
    return (entry.component, entry.counter) == (component, counter)
