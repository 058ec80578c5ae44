"""Decoder states of known voices: what a slot holds after the prompt audio, kept in slots of its own and copied."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol


class SlotCopier(Protocol):
    def copy_slot(self, source: int, target: int) -> None: ...


class VoiceStates:
    """States by the content of the prompt audio; the least recently used one makes room."""

    def __init__(self, runner: SlotCopier, slots: Sequence[int]) -> None:
        self._runner = runner
        self._free = list(slots)
        self._slots: OrderedDict[bytes, int] = OrderedDict()
        self.n_voices = len(slots)

    def start(self, voice: bytes, slot: int) -> bool:
        """Bring `slot` to the state after this prompt audio; False: it is not known."""
        source = self._slots.get(voice)
        if source is None:
            return False
        self._slots.move_to_end(voice)
        self._runner.copy_slot(source, slot)
        return True

    def keep(self, voice: bytes, slot: int) -> None:
        """Remember the state of `slot`, which has just decoded this prompt audio."""
        if self.n_voices == 0 or voice in self._slots:
            return
        target = self._free.pop() if self._free else self._slots.popitem(last=False)[1]
        self._runner.copy_slot(slot, target)
        self._slots[voice] = target
