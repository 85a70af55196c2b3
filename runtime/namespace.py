"""Whose agents are whose: a namespace for each API key."""

from hashlib import blake2b


def derive_namespace(key: str) -> str:
    """The namespace of a key's owner: 32 hex digits that do not give it away; "" for no key."""
    if not key:
        return ""
    return blake2b(key.encode(), digest_size=16, person=b"greenroom-caller").hexdigest()
