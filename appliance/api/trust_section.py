"""What is to be seen of secrets, signatures, the audit trail, and of those who ask to be let in."""

from __future__ import annotations

from appliance.api import model
from appliance.api.enrolment import EnrolmentDesk
from appliance.api.secret_watch import SecretWatch
from appliance.core.escape import escape_line
from appliance.core.times import rfc3339
from appliance.delivery.signer import SigningKeys
from appliance.delivery.verifier import Verifier
from appliance.telemetry.audit_file import AuditFile
from appliance.telemetry.metrics import MetricsFacts


class TrustSection:
    """Owns nothing."""

    def __init__(
        self,
        secrets: SecretWatch,
        signing: SigningKeys,
        verifier: Verifier,
        enrolment: EnrolmentDesk,
        trail: AuditFile,
    ) -> None:
        self._secrets = secrets
        self._signing = signing
        self._verifier = verifier
        self._enrolment = enrolment
        self._trail = trail

    def show(self, status: model.Status) -> None:
        """Its part of the status."""
        status.secrets = {
            place: model.Secret(
                kind=item.ref.kind,
                name=item.ref.name,
                usable=item.trouble is None,
                error=item.trouble,
                expires_at=None if item.expires_at is None else rfc3339(item.expires_at),
            )
            for place, item in self._secrets.found.items()
        }
        status.signatures = model.Signatures(
            refused={str(fault): count for fault, count in self._verifier.refused.items()},
            clock_skew_seconds={
                node: round(ahead_s, 3) for node, ahead_s in sorted(self._verifier.skews_s.items())
            },
        )
        status.enrolment = model.Asking(
            pending=self._enrolment.pending, turned_away=self._enrolment.turned_away
        )
        status.audit = model.AuditKept(
            **self._count_entries(), summing=[escape_line(one) for one in self._trail.summing]
        )

    def measure(self, facts: MetricsFacts) -> None:
        """Its part of the metrics."""
        facts.enrolment_pending = self._enrolment.pending
        facts.enrolment_turned_away = self._enrolment.turned_away
        facts.secrets = {
            place: (item.trouble is None, item.expires_at)
            for place, item in self._secrets.found.items()
        }
        facts.signatures_refused = {str(why): n for why, n in self._verifier.refused.items()}
        facts.skews_s = self._verifier.skews_s
        facts.audit_entries = self._count_entries()

    def troubles(self) -> list[str]:
        """What cannot be used, in words."""
        audit = [escape_line(words) for words in self._trail.troubles()]
        return self._secrets.troubles() + self._signing.troubles() + audit

    def _count_entries(self) -> dict[str, int]:
        trail = self._trail
        return {
            "entered": trail.entered,
            "summed": trail.summed,
            "unnamed": trail.unnamed,
            "lost": trail.lost,
        }
