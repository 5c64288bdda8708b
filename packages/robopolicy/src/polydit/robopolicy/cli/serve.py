"""`robopolicy serve`: a policy behind a websocket."""

from __future__ import annotations

from pathlib import Path

import click

from polydit.core.cli.options import checkpoint_option, config_option, device_option, output_options
from polydit.core.cli.output import Output


@click.command()
@checkpoint_option
@click.option(
    "--host", default="127.0.0.1", help="Address to listen at; one that other machines reach needs a token."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8764, help="Port to listen at; 0 = any free one."
)
@click.option(
    "--token-file", type=click.Path(dir_okay=False, path_type=Path), default=None, metavar="FILE",
    show_default="the variable ROBOPOLICY_TOKEN, if it is set",
    help="File with the token that clients must show; nobody else may be able to read it.",
)  # fmt: skip
@click.option(
    "--max-message", type=click.IntRange(min=1), default=32, metavar="MIB",
    help="Longest message that is taken, in MiB; an observation's pictures are sent as they are.",
)  # fmt: skip
@device_option
@config_option
@output_options
def serve(
    checkpoint: str | None,
    host: str,
    port: int,
    token_file: Path | None,
    max_message: int,
    device: str,
    output: Output,
) -> None:
    """Answer observations with actions, for a robot whose control program runs elsewhere.

    \b
    robopolicy serve --checkpoint policy/
    robopolicy serve --checkpoint policy/ --host 0.0.0.0 --token-file token.txt

    On the robot: polydit.robopolicy.PolicyClient(url, token) has the methods of RobotPolicy. Each client has its own
    episode. Traffic is not encrypted: across an untrusted network use ssh or a proxy that speaks TLS. Ctrl-C ends it.
    """
    from polydit.robopolicy.serve.access import find_token, is_loopback, require_extra, require_token

    require_extra()
    token = find_token(token_file)
    require_token(host, token)
    from polydit.core.jobs.device import choose_device
    from polydit.core.nn.packed import pack_linears
    from polydit.robopolicy.checkpoint import Checkpoint

    found, chosen = Checkpoint.find(checkpoint), choose_device(device)
    from polydit.robopolicy.policy import RobotPolicy
    from polydit.robopolicy.serve.metadata import Metadata
    from polydit.robopolicy.serve.server import PolicyServer, sharing_weights

    policy = RobotPolicy.from_pretrained(found.path).to(chosen.name)
    pack_linears(policy.network)
    with PolicyServer(
        sharing_weights(policy),
        Metadata.of(policy, found.name),
        host=host,
        port=port,
        token=token,
        max_message=max_message << 20,
        tell=output.note,
    ) as server:
        asks = "clients must show the token" if token else "no token is asked for"
        output.item({"event": "listening", "url": server.url, "checkpoint": found.name, "token": bool(token)})
        output.text(f"{found.name} answers at {server.url}; {asks}. Ctrl-C ends it.")
        if not is_loopback(host):
            output.warn("the traffic is not encrypted; anyone on the way can read observations and the token")
        server.serve_forever()
