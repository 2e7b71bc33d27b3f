"""The view of the packet of an approval."""

from __future__ import annotations

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from apps.artifacts.api.serializers.packets import PacketSerializer
from apps.artifacts.services import packets
from apps.releases.models import Approval
from apps.tenancy.api.base import EnvironmentViewSet
from apps.tenancy.permissions import Permission as P
from byteor_cloud.api.operations import Operation, Tag
from byteor_cloud.errors import Conflict, Unavailable


class PacketViewSet(EnvironmentViewSet):
    """The packet of an approval."""

    tag = Tag.APPROVALS
    queryset = Approval.objects.only("pk", "environment")
    serializer_class = PacketSerializer

    @Operation("getApprovalPacket", P.VIEW_ENVIRONMENT, responses=PacketSerializer, errors=(Conflict, Unavailable))
    def packet(self, request: Request, **kwargs: Any) -> Response:
        """Get the packet of an approval.

        Returns what a reviewer should know before the decision: what changes in the pipeline, in the configuration and
        in the output, which configurations agents run now, what was not tested, how much more work the candidate needs,
        which fixtures were removed, and what a rollback would restore. A response is limited to 4 MiB (see
        `truncated`). Callers without the permission `environment:operate` get the examples without payloads. Returns
        409 with the code `approval.no_packet` for the approval of a replay or of a wave.
        """
        approval = self.get_object()
        packet = packets.read_packet(
            packets.find_deployment(approval),
            with_payloads=P.OPERATE_ENVIRONMENT in self.granted_permissions,
            compute=self.compute,
        )
        return Response(PacketSerializer(_members(approval, packet)).data)


def _members(approval: Approval, packet: packets.Packet) -> dict[str, Any]:
    """Return the members of the packet's JSON."""
    summary, changes = packet.summary, packet.changes
    deployment = summary.deployment
    return {
        "approval_id": approval.pk,
        "deployment_id": deployment.pk,
        "headline": summary.headline,
        "pipeline": {
            "from_version": None if changes.base is None else str(changes.base.config_bundle.version),
            "to_version": str(deployment.config_bundle.version),
            "changes": () if changes.spec is None else changes.spec.changes,
        },
        "configuration": changes.config,
        "regression": summary.regression,
        "groups": packet.groups,
        "more": 0 if summary.row is None else summary.row.more,
        "captures": packet.captures,
        "agents": summary.agents,
        "other_agents": summary.other_agents,
        "removed_fixtures": packet.removed_fixtures,
        "rollback": packet.rollback,
        "explanations": packet.explanations,
        "gate": {
            "setting": deployment.policy.replay_gate,
            "override": deployment.replay_gate_override or None,
            "blockers": summary.blockers,
        },
        "truncated": packet.is_truncated,
    }
