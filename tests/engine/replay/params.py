"""Parameters of dataguard stages, as their checks see them."""

from byteor_cloud.engine.replay import check_params


def errors(op: str, params: object) -> list[tuple[str, str]]:
    return [(error.pointer, error.code) for error in check_params(op, params)]
