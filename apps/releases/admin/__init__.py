"""Console pages of approvals, config bundles and deployments."""

from apps.releases.admin import approvals, bundles, deployments, records

__all__ = ["approvals", "bundles", "deployments", "records"]
