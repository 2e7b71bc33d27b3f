"""A helper of tests that check the parameters of dataguard stages."""

from byteor_cloud.engine.replay import check_params


def errors(op: str, params: object) -> list[tuple[str, str]]:
    return [(error.pointer, error.code) for error in check_params(op, params)]
