"""The `starbase` command: serve, plugins, and the commands that plugins register.

Exit status: 0 done; 1 the operation failed; 2 wrong usage or configuration; 3 the name does not exist; 4 conflict with
something that runs; 5 the token was refused; 6 the source failed, or the host cannot be reached.
"""

from __future__ import annotations

import functools
import gc
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from starbase_host import config as configuration
from starbase_host.api_version import ApiDeprecation
from starbase_host.client import CommandHost
from starbase_host.config import HostConfig
from starbase_host.discovery import toml_key
from starbase_host.errors import ConfigError, StarbaseError
from starbase_host.new_plugin import PLUGIN
from starbase_host.plugins import Plugins
from starbase_host.printable import OneLineFormatter, printable

log = logging.getLogger("starbase")

# Rows have no reference cycles. With its defaults, the garbage collector took a tenth of the time of a first load.
COLLECT_AFTER = 50_000

EXIT_CODES = {400: 2, 401: 5, 403: 5, 404: 3, 409: 4, 502: 6, 503: 6}
DEFAULT_CONFIG = Path("plugin.toml")

HELP = """Run a host for plugins, with its own SQLite database.

You can write --config FILE (default: plugin.toml) and --json anywhere. Without a plugin.toml, the host uses its
defaults and every installed plugin.

Exit status: 0 done, 1 failed, 2 wrong usage or configuration, 3 name does not exist, 4 conflict, 5 token refused,
6 the source failed or the host cannot be reached.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the console script. An error is one line on stderr and an exit status, never a traceback.

    arguments: by default those of the process.
    """
    gc.set_threshold(COLLECT_AFTER, 20, 20)
    words, config_path, json_output = _global_options(list(sys.argv[1:] if arguments is None else arguments))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    warnings.filterwarnings("default", category=ApiDeprecation)
    logging.captureWarnings(True)
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    for noisy in ("httpx", "databases"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # uvicorn warns of malformed requests; a client that sends them must not fill the log.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    try:
        config = _load(config_path)
        host = CommandHost(config, json_output=json_output)
        commands = _Commands(host, functools.partial(_plugins_config, config, config_path))
        status = commands.main(args=words, prog_name="starbase", standalone_mode=False)
    except click.exceptions.Abort:
        status = 130
    except click.ClickException as error:
        if json_output:
            _fail(error.format_message(), error.exit_code, json_output=True)
        else:
            error.show()
        status = error.exit_code
    except StarbaseError as error:
        status = _fail(str(error), EXIT_CODES.get(error.status, 1), json_output=json_output)
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        # The reader of a pipe, such as head, has ended. Python would report stdout again at exit.
        sys.stdout = None
        status = 0
    except Exception as error:
        log.debug("unexpected", exc_info=True)
        status = _fail(f"{type(error).__name__}: {error}", 1, json_output=json_output)
    # The process ends now; a last garbage collection would take a tenth of a second.
    gc.freeze()
    sys.exit(status if isinstance(status, int) else 0)


def _global_options(words: list[str]) -> tuple[list[str], str | None, bool]:
    """Remove --config and --json from the words before a `--`; return the rest, the path, and whether --json is set."""
    rest: list[str] = []
    config_path: str | None = None
    json_output = False
    while words:
        word = words.pop(0)
        if word == "--":
            rest += [word, *words]
            break
        if word == "--json":
            json_output = True
        elif word == "--config" and words:
            config_path = words.pop(0)
        elif word.startswith("--config="):
            config_path = word.partition("=")[2]
        else:
            rest.append(word)
    return rest, config_path, json_output


def _load(config_path: str | None) -> HostConfig | ConfigError:
    """Return the configuration, or its error: not every command needs a configuration."""
    path = Path(config_path) if config_path is not None else DEFAULT_CONFIG
    if config_path is None and not path.exists():
        return HostConfig(database=Path.cwd() / HostConfig.database)
    try:
        return configuration.load(path)
    except ConfigError as error:
        return error


def _plugins_config(config: HostConfig | ConfigError, config_path: str | None) -> HostConfig:
    """Return a configuration with the plugins, for their commands. Raises ConfigError when even that is wrong."""
    if isinstance(config, HostConfig):
        return config
    return configuration.load_plugins(Path(config_path) if config_path is not None else DEFAULT_CONFIG)


class _Commands(click.Group):
    """The commands of the host and of plugins. Plugins are loaded only when the command is not one of the host."""

    def __init__(self, host: CommandHost, plugins_config: Callable[[], HostConfig]) -> None:
        super().__init__("starbase", help=HELP, params=[_version_option(host)])
        self._host = host
        self._plugins_config = plugins_config
        self._loaded = False
        self._left_out: dict[str, ConfigError] = {}
        self.add_command(_serve_command(host))
        self.add_command(_plugins_command(host))
        self.add_command(_new_plugin_command(host))

    def list_commands(self, ctx: click.Context) -> list[str]:
        try:
            self._load_plugin_commands()
        except StarbaseError as error:
            # Help must work even with a wrong configuration: users read it to find out what is wrong.
            click.echo(f"starbase: the commands of plugins are missing: {printable(str(error))}", err=True)
        return super().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands:
            self._load_plugin_commands()
            if cmd_name not in self.commands and self._left_out:
                # It may be a command of the plugin that is wrong.
                raise next(iter(self._left_out.values()))
        return super().get_command(ctx, cmd_name)

    def _load_plugin_commands(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        config = self._plugins_config()
        plugins = Plugins(config)
        # One plugin that is wrong must not take the commands of the others, nor their help.
        plugins.load(strict=False)
        self._left_out = plugins.left_out
        for name, error in plugins.left_out.items():
            click.echo(f"starbase: the commands of plugin {name} are missing: {printable(str(error))}", err=True)
        for name, commands in plugins.call_plain("register_commands", host=self._host):
            if not isinstance(commands, Sequence) or not all(isinstance(each, click.Command) for each in commands):
                log.error("plugin %s: register_commands did not return a list of commands", name)
                continue
            for command in commands:
                if command.name in self.commands:
                    raise ConfigError(
                        toml_key(config, f"plugins.{name}"),
                        f"its command {command.name} already exists; rename it",
                    )
                self.add_command(command)


def _version_option(host: CommandHost) -> click.Option:
    def show(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
        if wanted and not ctx.resilient_parsing:
            number = version("starbase-host")
            host.emit({"version": number}, f"starbase {number}")
            ctx.exit()

    return click.Option(
        ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=show, help="Show the version and exit."
    )


def _serve_command(host: CommandHost) -> click.Command:
    @click.command("serve", help="Run the host until SIGTERM or Ctrl-C.")
    def serve() -> None:
        from starbase_host import server

        def ready(url: str, made_token: bool) -> None:
            result = {"url": url, "database": str(host.config.database)}
            lines = [f"starbase: listening on {url}"]
            if host.config.admin_token is None:
                result["admin_token_file"] = str(host.config.token_file)
                where = "the host made one:" if made_token else "it is the one in"
                lines.append(f"starbase: no admin_token is set; {where} {host.config.token_file}")
            host.emit(result, "\n".join(lines))
            sys.stdout.flush()

        server.serve(host.config, ready)

    return serve


def _plugins_command(host: CommandHost) -> click.Command:
    @click.command("plugins", help="List the enabled plugins, their hooks, and what has failed in the running host.")
    def plugins() -> None:
        with host.running_client() as client:
            found: list[dict[str, Any]] = _load_plugins(host) if client is None else client.request("GET", "/plugins")
        host.emit(found, "\n".join(line for each in found for line in _plugin_lines(each)) or "no plugin is enabled")

    return plugins


def _new_plugin_command(host: CommandHost) -> click.Command:
    @click.command("new-plugin", help="Write a new plugin, with tests that pass, into the directory NAME.")
    @click.argument("name")
    def new_plugin(name: str) -> None:
        host.write_plugin(name, PLUGIN)

    return new_plugin


def _load_plugins(host: CommandHost) -> list[dict[str, Any]]:
    loaded = Plugins(host.config)
    loaded.load()
    loaded.warn()
    return [plugin.summary() for plugin in loaded.loaded]


def _plugin_lines(plugin: Mapping[str, Any]) -> Iterator[str]:
    yield f"{plugin['name']}  ({plugin['origin']})  {', '.join(plugin['hooks'])}"
    for name in plugin["unknown_hooks"]:
        yield f"    {name}: nobody offers this hook, so it is never called"
    for failure in plugin.get("failures", ()):
        times = "once" if failure["count"] == 1 else f"{failure['count']:,} times"
        yield f"    {failure['hook']}: failed {times}, last at {failure['last_at']}: {failure['error']}"


def _fail(message: str, status: int, *, json_output: bool) -> int:
    shown = json.dumps({"error": message}) if json_output else f"starbase: {printable(message)}"
    click.echo(shown, err=True)
    return status


if __name__ == "__main__":
    main()
