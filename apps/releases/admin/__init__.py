"""Approvals, config bundles, deployments in the console: where people approve, deny, watch and roll back."""

from apps.releases.admin import approvals, bundles, deployments, records

__all__ = ["approvals", "bundles", "deployments", "records"]
