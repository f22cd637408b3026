"""The only door to models: a call goes in, a reply or a translated error comes out."""

from __future__ import annotations

from tierwise.gateway.gateway import Gateway

__all__ = ["Gateway"]
