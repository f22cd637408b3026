"""The only door to models: a call goes in, a reply or one of our errors comes out.

gateway            chooses a lane for each call, and starts embedded models
resolved_model     a catalog entry's parameters, filled in and checked; its secrets; its lane
lean_lane          OpenAI's format, sent directly
litellm_lane       all other providers, through LiteLLM; litellm_transport sends for it
learned_lane       classifiers in this process (learned/)
batch/             provider batches: many calls in one upload, for less money
local/             embedded models: llama.cpp servers and their weights
embedders/         sentence encoders: texts become vectors, here or on a server
openai_format      requests in OpenAI's format
prepared           a request that is written, and sent elsewhere
http_exchange      the request and response of one call; json_body reads its JSON
connection_pool    HTTP connections, proxies, TLS
reply_fields       the fields of a response, in every form; add a server's oddity there
replies            the fields become a reply, or the error of one without an answer
usage              the token counts of a response, in every provider's words
provider_errors    HTTP statuses, Retry-After and exceptions become our errors; add a fault there
error_body         the body of an error, in any provider's form
no_credit          codes and words of an empty account
retry_hints        how long a server asks to wait
error_text         the text of a provider's error, without secrets and without the prompt
key_parts           parts of a key in a text: its ends, masked, split, or encoded
repeated_secret     refuses an answer that has a key in it
calibrate          the real price of a server of one's own
"""

from __future__ import annotations

from tierwise.gateway.gateway import Gateway

__all__ = ["Gateway"]
