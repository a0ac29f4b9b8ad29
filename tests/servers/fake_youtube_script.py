"""What the fake YouTube says instead of an answer, in the shapes and words of the real one."""

from __future__ import annotations

from typing import Any

RPC = "type.googleapis.com/google.rpc."
PER_DAY = (
    "Quota exceeded for quota metric 'Queries' and limit 'Queries per day' of service 'youtube.googleapis.com' for "
    "consumer 'project_number:123'."
)
PER_MINUTE = PER_DAY.replace("per day", "per minute per user")
OVER_QUOTA = (
    'The request cannot be completed because you have exceeded your <a href="/youtube/v3/getting-started#quota">'
    "quota</a>."
)


def legacy(status: int, reason: str, message: str, domain: str = "global", **place: str) -> tuple[int, dict[str, Any]]:
    """error.errors[].reason, the older of the two forms."""
    one = {"message": message, "domain": domain, "reason": reason, **place}
    return status, {"error": {"code": status, "message": message, "errors": [one]}}


def rpc(status: int, name: str, reason: str, message: str, old: str = "", **facts: str) -> tuple[int, dict[str, Any]]:
    """error.status and error.details[]; `old` is the reason in the older form beside it, which is vaguer."""
    info = {"@type": f"{RPC}ErrorInfo", "reason": reason, "domain": "googleapis.com", "metadata": facts}
    error: dict[str, Any] = {"code": status, "message": message, "status": name, "details": [info]}
    if old:
        error["errors"] = [{"message": message, "domain": "global", "reason": old}]
    return status, {"error": error}


REFUSALS: dict[str, tuple[int, dict[str, Any]]] = {
    "quota": legacy(403, "quotaExceeded", OVER_QUOTA, "youtube.quota"),
    "daily": legacy(
        403,
        "dailyLimitExceeded",
        "Daily Limit Exceeded. The quota will be reset at midnight Pacific Time (PT).",
        "usageLimits",
    ),
    "quota_rpc": rpc(
        429,
        "RESOURCE_EXHAUSTED",
        "RATE_LIMIT_EXCEEDED",
        PER_DAY,
        "rateLimitExceeded",
        quota_limit="defaultPerDayPerProject",
        quota_unit="1/d/{project}",
    ),
    "rate": legacy(403, "rateLimitExceeded", "Rate Limit Exceeded", "usageLimits"),
    "user_rate": legacy(403, "userRateLimitExceeded", "User Rate Limit Exceeded", "usageLimits"),
    "rate_rpc": rpc(
        429,
        "RESOURCE_EXHAUSTED",
        "RATE_LIMIT_EXCEEDED",
        PER_MINUTE,
        "rateLimitExceeded",
        quota_limit="defaultPerMinutePerUser",
        quota_unit="1/min/{project}/{user}",
    ),
    "key_invalid": rpc(
        400,
        "INVALID_ARGUMENT",
        "API_KEY_INVALID",
        "API key not valid. Please pass a valid API key.",
        "badRequest",
        service="youtube.googleapis.com",
    ),
    "key_invalid_legacy": legacy(400, "keyInvalid", "Bad Request", "usageLimits"),
    "no_key": rpc(
        403,
        "PERMISSION_DENIED",
        "",
        "Method doesn't allow unregistered callers (callers without established identity). Please use API Key or other "
        "form of API consumer identity to call this API.",
        "forbidden",
    ),
    "not_configured": rpc(
        403,
        "PERMISSION_DENIED",
        "SERVICE_DISABLED",
        "YouTube Data API v3 has not been used in project 123 before or it is disabled.",
        "accessNotConfigured",
        consumer="projects/123",
    ),
    "ip_blocked": legacy(
        403, "ipRefererBlocked", "The request did not specify any referer or its IP is not allowed.", "usageLimits"
    ),
    "ip_blocked_rpc": rpc(
        403,
        "PERMISSION_DENIED",
        "API_KEY_IP_ADDRESS_BLOCKED",
        "The provided API key has an IP address restriction. The originating IP address of the call (192.0.2.1) "
        "violates this restriction.",
        "forbidden",
    ),
    "service_blocked": rpc(
        403,
        "PERMISSION_DENIED",
        "API_KEY_SERVICE_BLOCKED",
        "Requests to this API youtube method youtube.api.v3.V3DataVideoService.List are blocked.",
        "forbidden",
    ),
    "forbidden": legacy(403, "forbidden", "The request is not properly authorized.", "youtube.common"),
    "login": legacy(401, "required", "Login Required", locationType="header", location="Authorization"),
    "no_filter": legacy(
        400,
        "missingRequiredParameter",
        "No filter selected. Expected one of: id, chart, myRating",
        "youtube.parameter",
        locationType="parameter",
        location="parameters.",
    ),
    "bad_id": legacy(
        400,
        "invalidParameter",
        "Invalid value for parameter id.",
        "youtube.parameter",
        locationType="parameter",
        location="id",
    ),
    "too_many": legacy(
        400,
        "invalidValue",
        "The request specifies too many values for the id parameter.",
        "youtube.parameter",
        locationType="parameter",
        location="id",
    ),
    "bad_part": legacy(400, "unknownPart", "statistic", "youtube.part", locationType="parameter", location="part"),
    "not_found": legacy(
        404,
        "videoNotFound",
        "The video that you are trying to retrieve cannot be found.",
        "youtube.video",
        locationType="parameter",
        location="id",
    ),
    "no_method": rpc(404, "NOT_FOUND", "", "Method not found.", "notFound"),
    "backend": legacy(500, "backendError", "Backend Error"),
    "unavailable": rpc(503, "UNAVAILABLE", "", "The service is currently unavailable.", "backendError"),
}
"""Refusals by name."""
