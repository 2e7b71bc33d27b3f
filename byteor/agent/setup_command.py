"""The shell command that installs, enrolls and runs an agent on its machine."""

from __future__ import annotations

from shlex import quote


def setup_command(base_url: str, package_url: str, sha256: str, environment: str) -> str:
    """Return the command, which prompts for the enrollment token instead of containing it.

    Therefore, the token appears neither in the shell history nor in the process list. ``sha256`` is the digest of the
    package in hexadecimal, which pip verifies. ``environment`` is ``ORG_ID/PROJECT_ID/ENV_ID``.
    """
    programs = "byteor-agent/bin"
    return (
        f"python3 -m venv byteor-agent && \\\n"
        f"{programs}/pip install --quiet {quote(f'{package_url}#sha256={sha256}')} && \\\n"
        f"{programs}/byteor-agent enroll --state byteor-agent/state --url {quote(base_url)} \\\n"
        f"  --environment {quote(environment)} && \\\n"
        f"{programs}/byteor-agent run --state byteor-agent/state"
    )
