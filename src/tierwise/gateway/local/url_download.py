"""A file from an address, such as that of a model hub: redirects are followed, downloads resumed.

Nothing that arrives is trusted: the caller compares its SHA-256.
"""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tierwise.errors import WeightsError

_CHUNK = 1 << 20
_SILENCE_S = 20  # without a byte, the download has failed
_AGENT = {"User-Agent": "tierwise"}


def download_url(
    address: str, path: Path, size: int, on_bytes: Callable[[int], None]
) -> None:
    """Download a file to `path`, after the bytes that are there; at most `size` bytes and one.

    `on_bytes` gets the bytes so far. Raises WeightsError, without the address: it may hold a
    secret from a variable.
    """
    have = path.stat().st_size if path.exists() else 0
    if have > size:
        path.unlink()
        have = 0
    if have == size:
        return
    try:
        with _open(address, have) as response:
            # 206: the rest of the file. Any other answer is the whole file.
            resumes = response.status == http.HTTPStatus.PARTIAL_CONTENT
            done = have if resumes else 0
            length = response.headers.get("Content-Length", "")
            promised = done + int(length) if length.isdecimal() else None
            with path.open("ab" if resumes else "wb") as file:
                while done <= size and (chunk := response.read(_CHUNK)):
                    file.write(chunk)
                    done += len(chunk)
                    on_bytes(done)
        if promised is not None and done < min(promised, size):
            raise WeightsError(f"the download broke off after {done} bytes; try again")
    except urllib.error.HTTPError as error:
        raise WeightsError(f"answers {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        detail = getattr(error.reason, "strerror", None) or error.reason
        raise WeightsError(f"cannot be reached ({detail})") from None
    except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
        detail = str(error) or type(error).__name__
        raise WeightsError(f"the download broke off ({detail}); try again") from None
    except ValueError:
        raise WeightsError("is not an http address") from None


def _open(address: str, have: int) -> Any:
    headers = dict(_AGENT)
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(address, headers=headers)  # noqa: S310
    return _opener().open(request, timeout=_SILENCE_S)


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener for http and https alone: a redirect never leads to a local file."""
    import certifi

    tls = ssl.create_default_context()
    tls.load_verify_locations(certifi.where())
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=tls),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener
