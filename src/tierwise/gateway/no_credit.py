"""Whether a provider refuses a call because the account is empty: its codes, then its words.

An empty account is not a rate limit, which passes by itself, and not a wrong key. To add a
provider's way to say it, add its code or a part of its sentence below.
"""

from __future__ import annotations

import re

from tierwise.gateway.error_body import ProviderWords

# Codes, types and states of errors, in lower case with `_` between words.
_CODES = frozenset(
    {
        "1113",  # Zhipu
        "30001",  # SiliconFlow
        "account_deactivated",
        "account_overdue_error",  # Volcengine
        "account_suspended",
        "arrearage",  # DashScope
        "billing_disabled",
        "billing_error",
        "billing_hard_limit_reached",
        "billing_limit_reached",
        "billing_not_active",
        "credit_balance_too_low",
        "credit_limit_exceeded",
        "credits_exhausted",
        "exceeded_current_quota_error",  # Moonshot
        "insufficient_balance",
        "insufficient_credit",
        "insufficient_credits",
        "insufficient_funds",
        "insufficient_quota",
        "monthly_spend_limit_reached",
        "no_credits",
        "not_enough_credits",
        "out_of_credit",
        "out_of_credits",
        "payment_required",
        "payment_required_error",
        "resource_insufficient_charge_resource_exhaust",  # Tencent
        "spend_limit_exceeded",
        "spend_limit_reached",
        "spending_limit_exceeded",
        "spending_limit_reached",
    }
)
_WORDS = re.compile(
    r"insufficient[ _-](account[ _-])?(balance|credit|fund|quota)"
    r"|(balance|credits?|funds|quota) (is|are|was|were|has been|have been)?\s*"
    r"(insufficient|exhausted|depleted|too low|used up|not enough|negative|zero|empty)"
    r"|(ran|run|running|are|is) out of (credit|fund|balance|money)"
    r"|\bout of credits?\b|\bno (more |remaining |available )?(credits?|balance|funds)\b"
    r"|not (have )?(any|enough) (credit|balance|fund)|(doesn'?t|don'?t) have any credits"
    r"|(lacks?|not enough|more|used all (available )?|exceeded your .{0,30}) credits?\b(?! to )"
    r"|(used|used up|consumed|spent) all (of )?(your |the )?(available )?(credits?|balance)"
    r"|can only afford|credit limit exceeded|key limit exceeded"
    r"|billing.{0,20}(hard limit|not active|disabled|inactive)|requires billing|overdue"
    r"|(spend|spending|billing|monthly usage|specified( api)? usage) (limits?|cap)\b"
    r"|(monthly|usage) budget.{0,20}(reached|exceeded)"
    r"|payment (is )?(required|failed)|non-?payment|unpaid|past due|in arrears"
    r"|subscription (has |is )?expired"
    r"|account .{0,40}(suspended|deactivated|disabled|frozen)"
    r"|please (recharge|top[ -]?up|add (credits|funds))"
    r"|余额不足|余额.{0,4}(不足|耗尽|为零)|欠费|请充值|额度.{0,4}(不足|用尽|用完|耗尽)|账[户号].{0,4}停用"
    r"|残高.{0,4}不足|クレジット.{0,6}不足|잔액.{0,4}부족|크레딧.{0,6}부족"
    r"|guthaben.{0,30}(aufgebraucht|reicht nicht|ausreich|erschöpft|leer)|kein guthaben"
    r"|(crédit|solde)s?.{0,20}(insuffisant|épuisé)|saldo insuficiente|sin saldo"
    r"|cr[ée]ditos? (agotad|esgotad|insuficient)|(credito|saldo) (insufficiente|esaurito)"
    r"|onvoldoende (saldo|tegoed)|недостаточно средств|niewystarczając\w+ środk"
)
# Both for an empty account (OpenAI) and for a minute's limit (Gemini, which says how long to wait).
_QUOTA = re.compile(
    r"(exceeded|reached) (your |the )?(current |monthly )?quota|quota (is |was |has been )?exceeded"
    r"|check your plan and billing"
)
_MINUTE = re.compile(
    r"per[ _-]?(minute|second|min)\b|perminute|\b[rt]pm\b", re.IGNORECASE
)
_WORD_BREAKS = re.compile(r"(?<=[a-z])(?=[A-Z])|[^A-Za-z0-9]+")


def is_out_of_credit(
    words: ProviderWords, *, asks_to_wait: bool, trusted: bool
) -> bool:
    """Return True if an error says that the account is empty or its spending limit is reached.

    `asks_to_wait`: the server says when to call again, so a quota fills up by itself. Words that
    are not `trusted` may quote the prompt, so the codes alone count.
    """
    if any(_normalized(name) in _CODES for name in words.names):
        return True
    if not trusted:
        return False
    text = words.words.casefold().replace("_", " ")
    if _WORDS.search(text):
        return True
    if asks_to_wait or not _QUOTA.search(text):
        return False
    return not any(_MINUTE.search(part) for part in (text, *words.names))


def _normalized(name: str) -> str:
    """Return a code in lower case with `_` between words: `AccountOverdueError`."""
    parts = _WORD_BREAKS.split(name)
    return "_".join(part.lower() for part in parts if part)
