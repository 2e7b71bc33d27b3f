"""An OpenID Connect provider on loopback. It follows the standard unless a test changes its responses."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

CLIENT_ID, CLIENT_SECRET = "byteor", "the client's secret, long enough for HS256"
_KEYS = [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2)]
KEY, OTHER_KEY = _KEYS
type Claims = dict[str, Any]


class Provider:
    """A provider for one person with ``claims``. ``change_claims`` changes the claims of an ID token before signing."""

    def __init__(self) -> None:
        self.claims: Claims = {"sub": "1", "email": "ada@acme.example", "email_verified": True, "name": "Ada"}
        self.userinfo: Claims = {}
        self.change_claims: Callable[[Claims], Claims] = lambda claims: claims
        self.sign: Callable[[Claims], str] = lambda claims: jwt.encode(claims, KEY, "RS256", headers={"kid": "1"})
        self.responses: dict[str, tuple[int, Any]] = {}  # responses that replace the regular ones, by path
        self.before_userinfo: Callable[[], object] = lambda: None
        self.tokens: list[str] = []  # the codes, tokens and PKCE verifiers so far
        self.requests: list[str] = []
        self._codes: dict[str, Claims] = {}
        self._sessions: dict[str, Claims] = {}

        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.startswith("/authorization_endpoint?"):
                    self._redirect()
                else:
                    self._respond({})

            def _redirect(self) -> None:
                """Authorize the browser's request without asking, and send the browser back."""
                [back] = parse_qs(urlsplit(self.path).query)["redirect_uri"]
                self.send_response(302)
                self.send_header("Location", f"{back}?{provider.authorize(self.path)}")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                self._respond({name: values[0] for name, values in parse_qs(body).items()})

            def _respond(self, form: dict[str, str]) -> None:
                status, body = provider._respond(self.path, form, self.headers.get("Authorization", ""))
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self._server.server_address[1]}"
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def authorize(self, url: str) -> str:
        """Authorize the request at ``url``, and return the query of the callback."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe()
        self.tokens.append(code)
        self._codes[code] = {**query, "claims": dict(self.claims), "userinfo": dict(self.userinfo)}
        return urlencode({"code": code, "state": query["state"]})

    def _respond(self, path: str, form: dict[str, str], authorization: str) -> tuple[int, Any]:
        self.requests.append(path)
        if path in self.responses:
            return self.responses[path]
        match path:
            case "/.well-known/openid-configuration":
                return 200, {
                    "issuer": self.issuer,
                    **{
                        name: f"{self.issuer}/{name}"
                        for name in ("authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri")
                    },
                }
            case "/jwks_uri":
                return 200, {
                    "keys": [{**jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key(), as_dict=True), "kid": "1"}]
                }
            case "/token_endpoint":
                return self._token(form, authorization)
            case "/userinfo_endpoint":
                self.before_userinfo()
                return 200, self._sessions[authorization.removeprefix("Bearer ")]
        return 404, {}

    def _token(self, form: dict[str, str], authorization: str) -> tuple[int, Any]:
        assert authorization == "Basic " + base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        granted = self._codes.pop(form.get("code", ""), None)
        if granted is None or granted["redirect_uri"] != form["redirect_uri"]:
            return 400, {"error": "invalid_grant", "error_description": form.get("code")}
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
        if challenge.decode() != granted["code_challenge"]:
            return 400, {"error": "invalid_grant", "error_description": "PKCE"}
        now = int(time.time())
        claims = {**granted["claims"], "iss": self.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 300}
        id_token = self.sign(self.change_claims({**claims, "nonce": granted["nonce"]}))
        access, refresh = secrets.token_urlsafe(), secrets.token_urlsafe()
        self.tokens += [id_token, access, refresh, form["code_verifier"]]
        self._sessions[access] = {**granted["claims"], **granted["userinfo"]}
        response = {"access_token": access, "refresh_token": refresh, "id_token": id_token, "token_type": "Bearer"}
        return 200, response
