"""What is kept in memory of the encoded segments: the most recently used, under a byte budget."""

from collections import OrderedDict

from greenroom.runtime.codec import Payload


def room_for_copies(budget_bytes: int, hot_bytes: int) -> int:
    """Bytes that decoded copies may take beside ``hot_bytes`` of encoded segments.

    The encoded ones come first: they are several times smaller, and each serves every agent that
    shares it. A copy that goes costs a decode, an encoded segment that goes a read and a decode.
    """
    return max(0, budget_bytes - hot_bytes)


class HotPayloads:
    """Encoded segments by id, least recently used first out. Holds nothing that is not on disk."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._payloads: OrderedDict[str, Payload] = OrderedDict()
        self.num_bytes = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._payloads)

    def get(self, segment_id: str) -> Payload | None:
        """The payload, which counts as used now; None if it is not in memory."""
        payload = self._payloads.get(segment_id)
        if payload is not None:
            self._payloads.move_to_end(segment_id)
        return payload

    def peek(self, segment_id: str) -> Payload | None:
        """The payload, which does not count as used for that. From any thread."""
        return self._payloads.get(segment_id)

    def put(self, segment_id: str, payload: Payload) -> None:
        """Keep it, and let go of the oldest until all fit; what exceeds the budget is not kept."""
        self.drop(segment_id)
        self._payloads[segment_id] = payload
        self.num_bytes += payload.num_bytes
        self._shrink(self._budget_bytes)

    def shed(self, num_bytes: int) -> None:
        """Let go of the oldest until so many bytes have gone, or all."""
        self._shrink(max(0, self.num_bytes - num_bytes))

    def drop(self, segment_id: str) -> None:
        """Forget it, if it is here."""
        payload = self._payloads.pop(segment_id, None)
        if payload is not None:
            self.num_bytes -= payload.num_bytes

    def _shrink(self, num_bytes: int) -> None:
        while self.num_bytes > num_bytes:
            _, oldest = self._payloads.popitem(last=False)
            self.num_bytes -= oldest.num_bytes
            self.evicted += 1
