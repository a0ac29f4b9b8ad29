"""Answers of OpenAI, its imitators and the proxies before them, each with the class of error it must become.

Sources: error pages and issue threads of the projects that met them; key material is replaced, wording is kept.
"""

# ruff: noqa: E501 - a recorded answer reads best beside its verdict

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from queries.errors import CatchupError, ItemPermanent, Misconfigured, OutOfMoney, Throttle, Transient, UnknownOutcome


@dataclass(frozen=True)
class Recorded:
    """One answer: what came, what it is; `told` is a wait, a reason or a code, whichever the class has."""

    name: str
    status: int
    body: Any
    becomes: type[CatchupError]
    told: float | str | None = None
    headers: dict[str, str] = field(default_factory=dict)


def err(message: str, kind: str | None = None, code: Any = None, param: Any = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def rpm(tail: str) -> dict[str, Any]:
    return err(f"Rate limit reached for gpt-4.1 in organization org-x on {tail}", "tokens", "rate_limit_exceeded")


HTML = "<html>\r\n<head><title>{}</title></head>\r\n<body><center><h1>{}</h1></center><hr>nginx</body></html>"
IRE = "invalid_request_error"
R = Recorded

THROTTLES = [
    R("tpm", 429, rpm("tokens per min (TPM): Limit 30000, Used 28039, Requested 3906. Please try again in 3.89s. Visit "
                      "https://platform.openai.com/account/rate-limits to learn more."), Throttle, 3.89),
    R("tpm-ms", 429, rpm("tokens per min (TPM): Limit 200000, Used 199800, Requested 780. Please try again in 174ms."),
      Throttle, 0.174),
    R("rpm", 429, rpm("requests per min (RPM): Limit 500, Used 500, Requested 1. Please try again in 120ms."), Throttle, 0.12),
    R("rpd", 429, rpm("requests per day (RPD): Limit 200, Used 200, Requested 1. Please try again in 7m12s."), Throttle, 432.0),
    R("tpd-hours", 429, rpm("tokens per day (TPD): Limit 1000000, Used 999999, Requested 2. Please try again in 1h2m3s."),
      Throttle, 3723.0),
    R("commas", 429, rpm("tokens per min (TPM): Limit 30,000, Used 28,039, Requested 3,906. Please try again in 3.89s."),
      Throttle, 3.89),
    R("exactly-the-limit", 429, rpm("tokens per min (TPM): Limit 30000, Used 1, Requested 30000. Please try again in 2ms."),
      Throttle, 0.002),
    R("no-hint", 429, err("Rate limit reached", "requests", "rate_limit_exceeded"), Throttle, None),
    R("type-tokens-only", 429, err("Too many tokens in flight", "tokens"), Throttle, None),
    R("slow-down", 429, err("Slow Down", "server_error", "slow_down"), Throttle, None),
    R("overloaded-429", 429, err("That model is currently overloaded with other requests.", "server_error"), Throttle, None),
    R("azure", 429, err("Requests to the ChatCompletions_Create Operation have exceeded token rate limit of your current "
                        "pricing tier. Please retry after 6 seconds.", None, "429"), Throttle, 6.0),
    R("azure-number-code", 429, err("Rate limit is exceeded. Try again in 26 seconds.", None, 429), Throttle, 26.0),
    R("cloudflare-1015", 429, HTML.format("Access denied | api.example used Cloudflare to restrict access", "1015"), Throttle),
    R("plain-text", 429, "Too Many Requests", Throttle),
    R("empty-429", 429, "", Throttle),
    R("array-429", 429, [{"error": {"code": 429, "message": "Resource exhausted", "status": "RESOURCE_EXHAUSTED"}}], Throttle),
    R("retry-after", 429, "", Throttle, 30.0, {"Retry-After": "30"}),
    R("retry-after-fraction", 429, "", Throttle, 0.5, {"retry-after": "0.5"}),
    R("retry-after-ms", 429, "", Throttle, 0.25, {"retry-after-ms": "250"}),
    R("retry-after-both", 429, "", Throttle, 1.0, {"retry-after-ms": "250", "retry-after": "1"}),
    R("retry-after-long", 429, "", Throttle, 121.0, {"retry-after": "121"}),
    R("retry-after-date", 429, "", Throttle, 40.0,
      {"retry-after": "Sat, 21 Nov 2026 10:00:40 GMT", "date": "Sat, 21 Nov 2026 10:00:00 GMT"}),
    R("retry-after-past-date", 429, "", Throttle, None,
      {"retry-after": "Sat, 21 Nov 2026 09:00:00 GMT", "date": "Sat, 21 Nov 2026 10:00:00 GMT"}),
    R("retry-after-negative", 429, "", Throttle, None, {"retry-after": "-5"}),
    R("retry-after-garbage", 429, "", Throttle, None, {"retry-after": "soon"}),
    R("retry-after-nan", 429, "", Throttle, None, {"retry-after": "nan"}),
    R("retry-after-inf", 429, "", Throttle, None, {"retry-after": "1e999"}),
    R("header-and-hint", 429, rpm("requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20s."),
      Throttle, 20.0, {"retry-after": "1"}),
    R("header-above-hint", 429, rpm("requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20ms."),
      Throttle, 7.0, {"retry-after": "7"}),
]  # fmt: skip

QUOTA = (
    "You exceeded your current quota, please check your plan and billing details. For more information on this error, "
)
MONEY = [
    R("insufficient-quota", 429, err(QUOTA, "insufficient_quota", "insufficient_quota"), OutOfMoney, "insufficient_quota"),
    R("quota-code-only", 429, err("Quota.", "requests", "insufficient_quota"), OutOfMoney, "insufficient_quota"),
    R("quota-type-only", 429, err("Quota.", "insufficient_quota"), OutOfMoney, "insufficient_quota"),
    R("quota-words-only", 429, err(QUOTA), OutOfMoney, "http_429"),
    *(
        R(code, 429, err("A limit of this account is reached.", "insufficient_quota", code), OutOfMoney, code)
        for code in ("credit_balance_exhausted", "organization_spend_limit_exceeded", "project_spend_limit_exceeded",
                     "organization_usage_limit_exceeded")
    ),
    R("spend-limit-code-alone", 403, err("Limit.", None, "project_spend_limit_exceeded"), OutOfMoney),
    R("hard-limit-400", 400, err("Billing hard limit has been reached", IRE, "billing_hard_limit_reached"), OutOfMoney),
    R("hard-limit-words", 400, err("billing hard limit has been reached", IRE), OutOfMoney),
    R("not-active-429", 429, err("Your account is not active, please check your billing details on our website.",
                                 "billing_not_active", "billing_not_active"), OutOfMoney),
    R("payment-required", 402, err("Insufficient credits"), OutOfMoney),
    R("payment-required-plain", 402, "", OutOfMoney),
    R("deepseek", 402, err("Insufficient Balance", "unknown_error", "invalid_request_error"), OutOfMoney),
    R("anthropic-style", 400, err("Your credit balance is too low to access the API.", IRE), OutOfMoney),
    R("quota-behind-500", 500, err("Quota.", "insufficient_quota"), OutOfMoney),
    R("quota-behind-503", 503, err(QUOTA), OutOfMoney),
    R("quota-inside-200", 200, err(QUOTA, "insufficient_quota", "insufficient_quota"), OutOfMoney),
    R("quota-with-retry-after", 429, err(QUOTA, "insufficient_quota", "insufficient_quota"), OutOfMoney, None,
      {"retry-after": "1"}),
    R("upper-case-code", 429, err("Quota.", None, "INSUFFICIENT_QUOTA"), OutOfMoney),
]  # fmt: skip

KEY = "Incorrect API key provided: sk-proj-****************wxyz. You can find your API key at https://platform.openai.com."
CONFIG = [
    R("wrong-key", 401, err(KEY, IRE, "invalid_api_key"), Misconfigured, "invalid_api_key"),
    R("no-key", 401, err("You didn't provide an API key. You need to provide your API key in an Authorization header.", IRE),
      Misconfigured),
    R("no-organization", 401, err("You must be a member of an organization to use the API", IRE), Misconfigured),
    R("wrong-organization", 401, err("No such organization: org-x.", IRE, "invalid_organization"), Misconfigured),
    R("ip", 401, err("Your IP address is not authorized.", IRE, "ip_not_authorized"), Misconfigured),
    R("revoked", 401, err("The account associated with this API key has been deactivated.", IRE, "account_deactivated"),
      Misconfigured),
    R("scopes", 401, err("You have insufficient permissions for this operation. Missing scopes: model.request."), Misconfigured),
    R("401-empty", 401, "", Misconfigured),
    R("401-html", 401, HTML.format("401 Authorization Required", "401"), Misconfigured, "http_401"),
    R("401-plain", 401, "Unauthorized", Misconfigured),
    R("vllm-401", 401, {"error": "Unauthorized"}, Misconfigured),
    R("country", 403, err("Country, region, or territory not supported", "request_forbidden",
                          "unsupported_country_region_territory"), Misconfigured),
    R("project-model", 403, err("Project `proj_x` does not have access to model `gpt-5`", IRE, "model_not_found"), Misconfigured),
    R("403-cloudflare", 403, HTML.format("Attention Required! | Cloudflare", "Sorry, you have been blocked"), Misconfigured),
    R("403-forbidden", 403, {"detail": "Forbidden"}, Misconfigured),
    R("model-404", 404, err("The model `gpt-9` does not exist or you do not have access to it.", IRE, "model_not_found"),
      Misconfigured, "model_not_found"),
    R("ollama-404", 404, err('model "llama9" not found, try pulling it first', "api_error"), Misconfigured),
    R("vllm-404", 404, {"object": "error", "message": "The model `x` does not exist.", "type": "NotFoundError", "code": 404},
      Misconfigured, "404"),
    R("path-404", 404, {"detail": "Not Found"}, Misconfigured),
    R("url-404", 404, err("Invalid URL (POST /v1/v1/chat/completions)", IRE), Misconfigured),
    R("azure-deployment", 404, err("The API deployment for this resource does not exist.", None, "DeploymentNotFound"),
      Misconfigured),
    R("404-html", 404, HTML.format("404 Not Found", "404 Not Found"), Misconfigured),
    R("model-as-400", 400, err("The requested model 'gpt-9' does not exist.", IRE, "model_not_found", "model"), Misconfigured),
    R("max-tokens", 400, err("Unsupported parameter: 'max_tokens' is not supported with this model. Use "
                             "'max_completion_tokens' instead.", IRE, "unsupported_parameter", "max_tokens"), Misconfigured),
    R("temperature", 400, err("Unsupported value: 'temperature' does not support 0.2 with this model.", IRE,
                              "unsupported_value", "temperature"), Misconfigured),
    R("system-role", 400, err("Unsupported value: 'messages[0].role' does not support 'system' with this model.", IRE,
                              "unsupported_value", "messages[0].role"), Misconfigured),
    R("unknown-parameter", 400, err("Unknown parameter: 'max_completion_token'.", IRE, "unknown_parameter", "x"), Misconfigured),
    R("completion-limit", 400, err("max_tokens is too large: 99999. This model supports at most 16384 completion tokens.", IRE,
                                   None, "max_tokens"), Misconfigured),
    R("not-a-chat-model", 404, err("This is not a chat model and thus not supported in the v1/chat/completions endpoint.", IRE,
                                   None, "model"), Misconfigured),
    R("auth-type", 400, err("bad credentials", "authentication_error"), Misconfigured),
    R("method", 405, err("Not allowed to GET on /v1/chat/completions.", IRE, "method_not_supported"), Misconfigured),
    R("proxy-login", 407, "", Misconfigured, "http_407"),
    R("gone", 410, err("This model has been retired."), Misconfigured),
    R("media-type", 415, err("Invalid Content-Type header", IRE), Misconfigured),
    R("headers-too-large", 431, "", Misconfigured),
    R("legal", 451, "", Misconfigured),
    R("key-behind-500", 500, err(KEY, IRE, "invalid_api_key"), Misconfigured),
    R("model-behind-503", 503, err("no such model", IRE, "model_not_found"), Misconfigured),
    R("key-inside-200", 200, err(KEY, IRE, "invalid_api_key"), Misconfigured),
    *(
        R(f"redirect-{status}", status, "", Misconfigured, f"http_{status}", {"location": "https://elsewhere.example/x?k=1"})
        for status in (301, 302, 303, 307, 308)
    ),
    R("redirect-nowhere", 302, HTML.format("Login", "Hotspot"), Misconfigured),
    R("not-modified", 304, "", Misconfigured),
]  # fmt: skip

CONTEXT = "This model's maximum context length is 128000 tokens. However, your messages resulted in 140012 tokens. "
ITEMS = [
    R("context", 400, err(CONTEXT + "Please reduce the length of the messages.", IRE, "context_length_exceeded", "messages"),
      ItemPermanent, "too_long"),
    R("context-words", 400, err(CONTEXT, IRE), ItemPermanent, "too_long"),
    R("context-vllm", 400, {"object": "error", "message": CONTEXT, "type": "BadRequestError", "param": None, "code": 400},
      ItemPermanent, "too_long"),
    R("context-llama-cpp", 400, err("the request exceeds the available context size, try increasing it",
                                    "exceed_context_size_error", 400), ItemPermanent, "too_long"),
    R("context-gpt-5", 400, err("Your input exceeds the context window of this model.", IRE, "context_length_exceeded"),
      ItemPermanent, "too_long"),
    R("string-too-long", 400, err("Invalid 'messages[1].content': string too long. Expected a string with maximum length "
                                  "10485760, but got 12000000 instead.", IRE, "string_above_max_length",
                                  "messages[1].content"), ItemPermanent, "too_long"),
    R("prompt-too-long", 400, err("prompt is too long: 210000 tokens > 200000 maximum", IRE), ItemPermanent, "too_long"),
    R("body-too-large", 413, HTML.format("413 Request Entity Too Large", "413"), ItemPermanent, "too_long"),
    R("context-embedding", 400, err("This model's maximum context length is 8192 tokens, however you requested 8610 tokens "
                                    "(8610 in your prompt; 0 for the completion). Please reduce your prompt; or completion "
                                    "length.", IRE), ItemPermanent, "too_long"),
    R("tokens-of-a-request", 400, err("Requested 416735 tokens, max 300000 tokens per request", "max_tokens_per_request",
                                      "max_tokens_per_request"), ItemPermanent, "request_too_large"),
    R("tokens-of-a-request-words", 400, err("Requested 416,735 tokens, max 300,000 tokens per request", IRE),
      ItemPermanent, "request_too_large"),
    R("inputs-of-a-request", 400, err("Invalid 'input': array too long. Expected an array with maximum length 2048, but got "
                                      "an array with length 2049 instead.", IRE, "array_above_max_length", "input"),
      ItemPermanent, "request_too_large"),
    R("tokens-of-a-request-mistral", 400, {"object": "error", "message": "Too many tokens in batch. Max is 16384 got 17555",
                                           "type": IRE, "param": None, "code": None}, ItemPermanent, "request_too_large"),
    R("inputs-of-a-request-tei", 413, {"message": "batch size 64 > maximum allowed batch size 32", "type": "Validation",
                                       "code": 413}, ItemPermanent, "request_too_large"),
    R("inputs-of-a-request-qwen", 400, err("<400> InternalError.Algo.InvalidParameter: Value error, batch size is invalid, it "
                                           "should not be larger than 10.: input.contents", "InvalidParameter", "InvalidParameter"),
      ItemPermanent, "request_too_large"),
    R("empty-input", 400, err("'$.input' is invalid. Please check the API reference: https://platform.openai.com/docs/"
                              "api-reference.", IRE), ItemPermanent, "rejected"),
    R("input-param", 400, err("Invalid 'input[7]': input cannot be an empty string.", IRE, "empty_string", "input[7]"),
      ItemPermanent, "rejected"),
    R("dimensions", 400, err("This model does not support specifying dimensions.", IRE, None, "dimensions"), Misconfigured),
    R("context-in-500", 500, err(CONTEXT, "server_error"), ItemPermanent, "too_long"),
    R("too-large-for-tier", 429, err("Request too large for gpt-4.1 in organization org-x on tokens per min (TPM): Limit 30000, "
                                     "Requested 45120. The input or output tokens must be reduced in order to run "
                                     "successfully.", "tokens", "rate_limit_exceeded"), ItemPermanent, "too_large_for_tier"),
    R("too-large-used", 429, rpm("tokens per min (TPM): Limit 30000, Used 0, Requested 45,000."), ItemPermanent,
      "too_large_for_tier"),
    R("too-large-no-numbers", 429, err("Request too large for gpt-4o", "tokens", "rate_limit_exceeded"), ItemPermanent,
      "too_large_for_tier"),
    R("invalid-prompt", 400, err("Invalid prompt: your prompt was flagged as potentially violating our usage policy. Please "
                                 "try again with a different prompt.", IRE, "invalid_prompt"), ItemPermanent, "content_filter"),
    R("policy-violation", 400, err("Your request was rejected by our safety system.", IRE, "content_policy_violation"),
      ItemPermanent, "content_filter"),
    R("policy-words", 400, err("Your request was rejected as a result of our safety system.", IRE), ItemPermanent,
      "content_filter"),
    R("azure-filter", 400, err("The response was filtered due to the prompt triggering Azure OpenAI's content management "
                               "policy.", None, "content_filter", "prompt"), ItemPermanent, "content_filter"),
    R("azure-inner", 400, {"error": {"message": "Filtered.", "code": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
      ItemPermanent, "content_filter"),
    R("moderation", 400, err("Blocked.", "image_generation_user_error", "moderation_blocked"), ItemPermanent, "content_filter"),
    R("bad-content", 400, err("Invalid 'messages[1].content': expected a string.", IRE, "invalid_type", "messages[1].content"),
      ItemPermanent, "rejected"),
    R("bad-messages", 400, err("Invalid value for messages.", IRE, "invalid_value", "messages"), ItemPermanent, "rejected"),
    R("bad-json", 400, err("We could not parse the JSON body of your request.", IRE), ItemPermanent, "rejected"),
    R("unknown-400", 400, err("Something odd about this one.", IRE), ItemPermanent, "rejected"),
    R("empty-400", 400, "", ItemPermanent, "rejected"),
    R("fastapi-422", 422, {"detail": [{"loc": ["body", "messages"], "msg": "field required", "input": "the transcript"}]},
      ItemPermanent, "rejected"),
    R("teapot", 418, "I'm a teapot", ItemPermanent, "rejected"),
]  # fmt: skip

PASSING = [
    R("500", 500, err("The server had an error while processing your request. Sorry about that!", "server_error"), Transient),
    R("500-empty", 500, "", Transient, "http_500"),
    R("500-plain", 500, "Internal Server Error", Transient),
    R("500-array", 500, [], Transient),
    R("500-null", 500, "null", Transient),
    R("500-number", 500, "7", Transient),
    R("500-string", 500, '"oops"', Transient),
    R("500-error-string", 500, {"error": "CUDA out of memory"}, Transient),
    R("500-error-null", 500, {"error": None}, Transient),
    R("500-error-list", 500, {"error": ["x"]}, Transient),
    R("500-cut-json", 500, '{"error": {"message": "The ser', Transient),
    R("500-nul", 500, "\x00\x01", Transient),
    R("502-nginx", 502, HTML.format("502 Bad Gateway", "502 Bad Gateway"), Transient, "http_502"),
    R("503-overloaded", 503, err("The engine is currently overloaded, please try again later", "server_error"), Transient),
    R("503-slow-down", 503, err("Slow Down", "server_error", "slow_down"), Transient, "slow_down"),
    R("503-html", 503, HTML.format("503 Service Temporarily Unavailable", "503"), Transient, "http_503"),
    R("503-envoy", 503, "upstream connect error or disconnect/reset before headers. reset reason: overflow", Transient),
    R("503-loading", 503, err("Loading model", "unavailable_error", 503), Transient),
    R("503-retry-after", 503, "", Transient, None, {"retry-after": "20"}),
    *(R(f"cloudflare-{s}", s, f"error code: {s}", Transient, f"http_{s}") for s in (520, 521, 522, 523, 525, 526, 527, 530)),
    R("529-overloaded", 529, err("Overloaded", "overloaded_error"), Transient),
    R("501", 501, "", Transient),
    R("511-portal", 511, HTML.format("Login", "Hotspot"), Transient),
    R("599", 599, "", Transient),
    R("408", 408, err("Request timed out.", IRE), Transient),
    R("409", 409, err("The resource is locked, try again.", IRE), Transient),
    R("425", 425, "", Transient),
    R("499", 499, "", Transient),
    R("error-in-200", 200, err("The server had an error while processing your request.", "server_error"), Transient, "malformed"),
    R("504", 504, HTML.format("504 Gateway Time-out", "504"), UnknownOutcome, "http_504"),
    R("524", 524, "error code: 524", UnknownOutcome, "http_524"),
]  # fmt: skip

ANSWERS = [*THROTTLES, *MONEY, *CONFIG, *ITEMS, *PASSING]

# A 200 whose body is no answer, and why.
NO_ANSWERS: list[tuple[str, bytes]] = [
    ("empty", b""),
    ("spaces", b" \n "),
    ("html", b"<html><title>Welcome</title></html>"),
    ("cut", b'{"choices": [{"index": 0, "message": {"role": "assist'),
    ("null", b"null"),
    ("array", b"[]"),
    ("string", b'"ok"'),
    ("number", b"200"),
    ("no-choices-key", b"{}"),
    ("choices-empty", b'{"choices": []}'),
    ("choices-null", b'{"choices": null}'),
    ("choices-object", b'{"choices": {}}'),
    ("choice-null", b'{"choices": [null]}'),
    ("choice-text", b'{"choices": ["hi"]}'),
    ("completions-shape", b'{"choices": [{"text": "hi", "finish_reason": "stop"}]}'),
    ("message-null", b'{"choices": [{"message": null}]}'),
    ("message-text", b'{"choices": [{"message": "hi"}]}'),
    ("content-number", b'{"choices": [{"message": {"content": 5}}]}'),
    ("content-object", b'{"choices": [{"message": {"content": {"text": "hi"}}}]}'),
    ("content-odd-parts", b'{"choices": [{"message": {"content": [1]}}]}'),
    ("refusal-number", b'{"choices": [{"message": {"content": "hi", "refusal": 1}}]}'),
    ("finish-number", b'{"choices": [{"message": {"content": "hi"}, "finish_reason": 1}]}'),
    ("model-object", b'{"choices": [{"message": {"content": "hi"}}], "model": {}}'),
    ("error-object", b'{"error": {"message": "The server had an error", "type": "server_error"}}'),
    ("error-text", b'{"error": "boom"}'),
    ("two-objects", b'{"choices": []}{"choices": []}'),
    ("stream", b'data: {"choices": [{"delta": {"content": "hi"}}]}\n\ndata: [DONE]\n\n'),
    ("deep", b"[" * 100_000),
    ("not-utf8", b'{"choices": [{"message": {"content": "\xff\xfe"}}]}'),
    ("utf16", '{"choices": []}'.encode("utf-16")),
]
