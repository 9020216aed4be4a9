"""The command line of the management API: ``deployment``, ``account``, ``key``, ``role`` and ``usage``.

Laws
----
1. A command talks to a server that runs, over HTTP, with a token; it reads no configuration and no store.
2. What the server refuses is one line on stderr, with its code. Exit codes: 0 done, 1 refused or not reached, 2 the
   command line is wrong.
3. ``--json`` prints what the server said, unchanged; otherwise a table, plain when piped.
4. A key is printed by ``key list`` and ``key rotate`` alone, a token never.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final
from urllib.parse import quote, urlencode, urlsplit

import typer

from vivavoce.cli_failure import FAILED, WRONG, Failure

API_VERSION: Final = "2025-09-01"
ROLES_API_VERSION: Final = "2022-04-01"
GROUPS_API_VERSION: Final = "2022-12-01"
TOKEN_VARIABLE: Final = "VIVAVOCE_TOKEN"
URL_VARIABLE: Final = "VIVAVOCE_URL"
DEFAULT_URL: Final = "http://127.0.0.1:8089"

_PROVIDER: Final = "Microsoft.CognitiveServices"
_AUTHORIZATION: Final = "Microsoft.Authorization"
_TIMEOUT_S: Final = 60.0

deployment_app = typer.Typer(no_args_is_help=True, help="Deployments: models under names, while the server runs.")
account_app = typer.Typer(no_args_is_help=True, help="Accounts: Azure OpenAI resources, while the server runs.")
key_app = typer.Typer(no_args_is_help=True, help="The two keys of an account.")
role_app = typer.Typer(no_args_is_help=True, help="Who may do what, and where.")

UrlOption = Annotated[
    str, typer.Option("--url", envvar=URL_VARIABLE, help="The server, as http:// or https:// URL.")
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        "--token", envvar=TOKEN_VARIABLE, metavar="TOKEN", show_default=False, help="A Bearer token for management."
    ),
]
AccountOption = Annotated[
    str | None,
    typer.Option(
        "--account",
        metavar="ACCOUNT",
        show_default=False,
        help="Its name or id; may be left out where there is one.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the server's JSON.")]


@dataclass(frozen=True, slots=True)
class Server:
    """The management API of one server."""

    url: str
    token: str = field(repr=False)

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        version: str = API_VERSION,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The answer's JSON, None where it has none. Raises :class:`Failure`."""
        address = f"{self.url}{path}?{urlencode({'api-version': version, **(query or {})})}"
        return self._send(method, address, body, headers or {})

    def all(self, path: str, *, version: str = API_VERSION, query: Mapping[str, str] | None = None) -> list[Any]:
        """Of every page of a list."""
        answer = self.call("GET", path, version=version, query=query)
        found = list(answer["value"])
        while "nextLink" in answer:
            # At the URL that the user gave: the server may know itself by another.
            link = urlsplit(answer["nextLink"])
            answer = self._send("GET", f"{self.url}{link.path}?{link.query}", None, {})
            found += answer["value"]
        return found

    def _send(self, method: str, address: str, body: object, more: Mapping[str, str]) -> Any:
        from urllib.error import HTTPError, URLError
        from urllib.request import Request, urlopen

        headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/json", **more}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        request = Request(address, data=data, headers=headers, method=method)
        try:
            with urlopen(request, timeout=_TIMEOUT_S) as answer:
                content = answer.read()
        except HTTPError as error:
            raise Failure(FAILED, _refusal(error.code, error.read())) from None
        except (URLError, OSError, ValueError) as error:
            reason = error.reason if isinstance(error, URLError) else error
            raise Failure(FAILED, f"{self.url} cannot be reached: {reason}") from None
        return json.loads(content) if content else None


def _refusal(status: int, content: bytes) -> str:
    try:
        error = json.loads(content)["error"]
        return f"{error['code']}: {error['message']}"
    except (ValueError, KeyError, TypeError):
        return f"HTTP {status}: is the management API enabled there ([management] enabled = true)?"


def server_at(url: str, token: str | None) -> Server:
    """The server that the options name. Raises :class:`Failure`."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise Failure(WRONG, f"--url: {url!r} is no http:// or https:// URL")
    if not token:
        raise Failure(WRONG, f"a token is needed: --token, or {TOKEN_VARIABLE}")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise Failure(WRONG, "--token: a token has no spaces and is printable ASCII")
    return Server(f"{parts.scheme}://{parts.netloc}", token)


def accounts(server: Server) -> list[Any]:
    """All that the caller may read."""
    found = []
    for one in server.all("/subscriptions", version=GROUPS_API_VERSION):
        found += server.all(f"/subscriptions/{_part(one['subscriptionId'])}/providers/{_PROVIDER}/accounts")
    return found


def account_named(server: Server, name: str | None) -> str:
    """Id of an account, by its id or its name; the only one where none is named. Raises :class:`Failure`."""
    if name is not None and name.startswith("/"):
        return name.rstrip("/")
    known = accounts(server)
    found = [one for one in known if name is None or one["name"].lower() == name.lower()]
    if len(found) == 1:
        return str(found[0]["id"])
    names = ", ".join(sorted(one["name"] for one in known)) or "none that you may read"
    if not found:
        wanted = "there is no account" if name is None else f"there is no account '{name}'"
        raise Failure(FAILED, f"{wanted} (there are: {names})")
    raise Failure(
        WRONG, f"--account: name one of {names}" if name is None else f"--account: give the id of '{name}'"
    )


def _part(text: str) -> str:
    return quote(text, safe="")


def _show(rows: Sequence[Sequence[object]], columns: Sequence[str], raw: object, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(raw, indent=2, ensure_ascii=False))
        return
    from rich.table import Table

    from vivavoce.cli_engines import print_table

    table = Table(*columns)
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    print_table(table)


# -------------------------------------------------------------------------------------------------- deployments

_DEPLOYMENT_COLUMNS: Final = ("deployment", "model", "version", "sku", "capacity", "upgrade", "state")


def _deployment_row(one: Mapping[str, Any]) -> tuple[object, ...]:
    properties = one["properties"]
    model = properties["model"]
    return (
        one["name"],
        model["name"],
        model.get("version"),
        one["sku"]["name"],
        one["sku"]["capacity"],
        properties["versionUpgradeOption"],
        properties["provisioningState"],
    )


@deployment_app.command("list")
def deployment_list(
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    account: AccountOption = None,
    as_json: JsonOption = False,
) -> None:
    """The deployments of an account."""
    server = server_at(url, token)
    found = server.all(f"{account_named(server, account)}/deployments")
    _show([_deployment_row(one) for one in found], _DEPLOYMENT_COLUMNS, found, as_json=as_json)


@deployment_app.command("show")
def deployment_show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The deployment.")],
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    account: AccountOption = None,
    as_json: JsonOption = False,
) -> None:
    """One deployment."""
    server = server_at(url, token)
    found = server.call("GET", f"{account_named(server, account)}/deployments/{_part(name)}")
    _show(list(_fields(found)), ("field", "value"), found, as_json=as_json)


def _fields(thing: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in thing.items():
        if isinstance(value, dict):
            yield from _fields(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield f"{prefix}{name}", json.dumps(value, ensure_ascii=False)
        else:
            yield f"{prefix}{name}", value


@deployment_app.command("create")
def deployment_create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What clients will ask for.")],
    model: Annotated[str, typer.Option(metavar="MODEL", help="As the service calls it: gpt-realtime.")],
    version: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Of the model; its default version if not given.")
    ] = None,
    sku: Annotated[
        str, typer.Option(metavar="SKU", help="GlobalStandard, ProvisionedManaged, ...")
    ] = "GlobalStandard",
    capacity: Annotated[
        int | None, typer.Option(metavar="N", help="Thousands of tokens per minute, or PTU of a provisioned sku.")
    ] = None,
    upgrade: Annotated[
        str | None,
        typer.Option(
            metavar="OPTION",
            help="OnceNewDefaultVersionAvailable, OnceCurrentVersionExpired or NoAutoUpgrade.",
        ),
    ] = None,
    source_account: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Account that a fine-tuned model comes from, when it is another."),
    ] = None,
    source_token: Annotated[
        str | None,
        typer.Option(metavar="TOKEN", help="A token of the source account's tenant, when that is another."),
    ] = None,
    spillover: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Standard deployment that takes what a provisioned one cannot."),
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Repeatable.")] = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    account: AccountOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a deployment, or replace what one is."""
    server = server_at(url, token)
    wanted = {"name": model, "format": "OpenAI", "version": version, "sourceAccount": source_account}
    properties: dict[str, Any] = {
        "model": {key: value for key, value in wanted.items() if value is not None},
        "versionUpgradeOption": upgrade,
        "spilloverDeploymentName": spillover,
    }
    body: dict[str, Any] = {
        "sku": {"name": sku} if capacity is None else {"name": sku, "capacity": capacity},
        "properties": {key: value for key, value in properties.items() if value is not None},
    }
    tags = _tags(tag)
    if tags is not None:
        body["tags"] = tags
    headers = {} if source_token is None else {"x-ms-authorization-auxiliary": f"Bearer {source_token}"}
    path = f"{account_named(server, account)}/deployments/{_part(name)}"
    made = server.call("PUT", path, body, headers=headers)
    _show([_deployment_row(made)], _DEPLOYMENT_COLUMNS, made, as_json=as_json)


def _tags(given: Sequence[str] | None) -> dict[str, str] | None:
    if not given:
        return None
    tags = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not name or not equals:
            raise Failure(WRONG, f"--tag: {one!r} is not NAME=VALUE")
        tags[name] = value
    return tags


@deployment_app.command("delete")
def deployment_delete(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The deployment.")],
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    account: AccountOption = None,
) -> None:
    """Delete a deployment. Sessions that run go on."""
    server = server_at(url, token)
    path = f"{account_named(server, account)}/deployments/{_part(name)}"
    # The service answers the deletion of nothing as done; a person wants to know of a slip.
    server.call("GET", path)
    server.call("DELETE", path)
    typer.echo(f"deleted: {path}")


# ----------------------------------------------------------------------------------------------------- accounts

_ACCOUNT_COLUMNS: Final = ("account", "location", "resource group", "subscription", "endpoint")


def _account_row(one: Mapping[str, Any]) -> tuple[object, ...]:
    parts = one["id"].split("/")
    return one["name"], one["location"], parts[4], parts[2], one["properties"]["endpoint"]


@account_app.command("list")
def account_list(url: UrlOption = DEFAULT_URL, token: TokenOption = None, as_json: JsonOption = False) -> None:
    """All accounts that you may read."""
    found = accounts(server_at(url, token))
    _show([_account_row(one) for one in found], _ACCOUNT_COLUMNS, found, as_json=as_json)


@account_app.command("show")
def account_show(
    name: Annotated[str, typer.Argument(metavar="ACCOUNT", help="Its name or id.")],
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """One account."""
    server = server_at(url, token)
    found = server.call("GET", account_named(server, name))
    _show(list(_fields(found)), ("field", "value"), found, as_json=as_json)


@account_app.command("create")
def account_create(
    name: Annotated[str, typer.Argument(metavar="ACCOUNT", help="The name of the account.")],
    location: Annotated[str, typer.Option(metavar="REGION", help="eastus2, swedencentral, ...")],
    resource_group: Annotated[str, typer.Option(metavar="GROUP", help="One that there is.")],
    subscription: Annotated[
        str | None, typer.Option(metavar="ID", help="May be left out where there is one.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Repeatable.")] = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an account, with two keys."""
    server = server_at(url, token)
    if subscription is None:
        known = [one["subscriptionId"] for one in server.all("/subscriptions", version=GROUPS_API_VERSION)]
        if len(known) != 1:
            raise Failure(WRONG, f"--subscription: name one of {', '.join(known) or 'none that you may read'}")
        subscription = known[0]
    path = (
        f"/subscriptions/{_part(subscription)}/resourceGroups/{_part(resource_group)}/providers/{_PROVIDER}/accounts/"
        f"{_part(name)}"
    )
    body: dict[str, Any] = {"location": location, "kind": "OpenAI", "sku": {"name": "S0"}, "properties": {}}
    tags = _tags(tag)
    if tags is not None:
        body["tags"] = tags
    made = server.call("PUT", path, body)
    _show([_account_row(made)], _ACCOUNT_COLUMNS, made, as_json=as_json)


@account_app.command("delete")
def account_delete(
    name: Annotated[str, typer.Argument(metavar="ACCOUNT", help="Its name or id.")],
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
) -> None:
    """Delete an account that has no deployments, and its keys."""
    server = server_at(url, token)
    path = account_named(server, name)
    server.call("GET", path)
    server.call("DELETE", path)
    typer.echo(f"deleted: {path}")


# --------------------------------------------------------------------------------------------------------- keys


@key_app.command("list")
def key_list(
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    account: AccountOption = None,
    as_json: JsonOption = False,
) -> None:
    """Both keys of an account, in clear."""
    server = server_at(url, token)
    keys = server.call("POST", f"{account_named(server, account)}/listKeys")
    _show(list(keys.items()), ("key", "value"), keys, as_json=as_json)


@key_app.command("rotate")
def key_rotate(
    slot: Annotated[str, typer.Argument(metavar="SLOT", help="key1 or key2.")],
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    account: AccountOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give an account a new key; the old one of the slot opens nothing any more."""
    server = server_at(url, token)
    keys = server.call("POST", f"{account_named(server, account)}/regenerateKey", {"keyName": slot})
    _show(list(keys.items()), ("key", "value"), keys, as_json=as_json)


# -------------------------------------------------------------------------------------------------------- roles

_ROLE_COLUMNS: Final = ("role", "principal", "type", "scope", "assignment")
ScopeOption = Annotated[
    str | None,
    typer.Option(
        "--scope",
        metavar="ID",
        show_default=False,
        help="Id of a subscription, group, account or deployment; the account if not given.",
    ),
]


def _roles(server: Server, scope: str) -> dict[str, str]:
    """Names of the roles by the last part of their ids."""
    path = f"{scope}/providers/{_AUTHORIZATION}/roleDefinitions"
    found = server.all(path, version=ROLES_API_VERSION)
    return {one["name"]: one["properties"]["roleName"] for one in found}


def _role_row(one: Mapping[str, Any], names: Mapping[str, str]) -> tuple[object, ...]:
    properties = one["properties"]
    role = properties["roleDefinitionId"].rpartition("/")[2]
    return (
        names.get(role, role),
        properties["principalId"],
        properties["principalType"],
        properties["scope"],
        one["name"],
    )


def _scope(server: Server, scope: str | None, account: str | None) -> str:
    return account_named(server, account) if scope is None else scope.rstrip("/")


@role_app.command("assign")
def role_assign(
    role: Annotated[str, typer.Argument(metavar="ROLE", help="Its name or id: 'Cognitive Services OpenAI User'.")],
    principal: Annotated[str, typer.Argument(metavar="PRINCIPAL", help="Object id of who gets it.")],
    kind: Annotated[
        str, typer.Option("--type", metavar="TYPE", help="User, Group or ServicePrincipal.")
    ] = "ServicePrincipal",
    scope: ScopeOption = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    account: AccountOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let somebody do what a role allows."""
    server = server_at(url, token)
    where = _scope(server, scope, account)
    names = _roles(server, where)
    found = next((one for one, name in names.items() if role.lower() in (one, name.lower())), None)
    if found is None:
        raise Failure(WRONG, f"there is no role '{role}' (there are: {', '.join(sorted(names.values()))})")
    body = {
        "properties": {
            "roleDefinitionId": f"/providers/{_AUTHORIZATION}/roleDefinitions/{found}",
            "principalId": principal,
            "principalType": kind,
        }
    }
    path = f"{where}/providers/{_AUTHORIZATION}/roleAssignments/{uuid.uuid4()}"
    made = server.call("PUT", path, body, version=ROLES_API_VERSION)
    _show([_role_row(made, names)], _ROLE_COLUMNS, made, as_json=as_json)


@role_app.command("list")
def role_list(
    principal: Annotated[
        str | None, typer.Option(metavar="PRINCIPAL", help="Only what this object id holds by itself.")
    ] = None,
    scope: ScopeOption = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    account: AccountOption = None,
    as_json: JsonOption = False,
) -> None:
    """Who holds which role at a scope, above it and below it."""
    server = server_at(url, token)
    where = _scope(server, scope, account)
    if principal is not None and "'" in principal:
        raise Failure(WRONG, "--principal: an object id has no quotes")
    query = None if principal is None else {"$filter": f"principalId eq '{principal}'"}
    path = f"{where}/providers/{_AUTHORIZATION}/roleAssignments"
    found = server.all(path, version=ROLES_API_VERSION, query=query)
    names = {} if as_json else _roles(server, where)
    _show([_role_row(one, names) for one in found], _ROLE_COLUMNS, found, as_json=as_json)


@role_app.command("delete")
def role_delete(
    assignment: Annotated[str, typer.Argument(metavar="ASSIGNMENT", help="Its id, or its name at --scope.")],
    scope: ScopeOption = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    account: AccountOption = None,
) -> None:
    """Take a role away."""
    server = server_at(url, token)
    path = assignment
    if not assignment.startswith("/"):
        where = _scope(server, scope, account)
        path = f"{where}/providers/{_AUTHORIZATION}/roleAssignments/{_part(assignment)}"
    server.call("GET", path, version=ROLES_API_VERSION)
    server.call("DELETE", path, version=ROLES_API_VERSION)
    typer.echo(f"deleted: {path}")


# -------------------------------------------------------------------------------------------------------- usage


def usage(
    location: Annotated[
        str | None,
        typer.Option(metavar="REGION", help="Quota of the subscription in a region, instead of an account's use."),
    ] = None,
    subscription: Annotated[
        str | None, typer.Option(metavar="ID", help="With --location; may be left out where there is one.")
    ] = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    account: AccountOption = None,
    as_json: JsonOption = False,
) -> None:
    """What an account used this month, or with --location how much quota is given away."""
    server = server_at(url, token)
    if location is None:
        found = server.all(f"{account_named(server, account)}/usages")
    else:
        if subscription is None:
            subscription = account_named(server, account).split("/")[2]
        where = f"/subscriptions/{_part(subscription)}/providers/{_PROVIDER}/locations/{_part(location)}"
        found = server.all(f"{where}/usages")
    rows = [
        (one["name"]["value"], one["currentValue"], one.get("limit"), one.get("nextResetTime")) for one in found
    ]
    _show(rows, ("name", "used", "limit", "until"), found, as_json=as_json)
