"""Every setting of Slipway, read from the environment; safe when nothing is set. Documented in docs/settings.md."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import django_stubs_ext
import structlog
from django.core.exceptions import ImproperlyConfigured

django_stubs_ext.monkeypatch()

BASE_DIR = Path(__file__).resolve().parent.parent
# A host, its port, and a path below it.
EXAMPLE = re.compile(r"oci://[^\s@]+@sha256:[0-9a-f]{64}( /\S*)?")
REGISTRY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]([a-z0-9._-]*[a-z0-9])?)*")


def env(name: str, default: str = "") -> str:
    """Return a setting, or the content of the file that NAME_FILE names (for mounted secrets). Empty means not set."""
    file = os.environ.get(f"{name}_FILE")
    if file:
        return Path(file).read_text(encoding="utf-8").strip() or default
    return os.environ.get(name) or default


def env_bool(name: str, default: bool = False) -> bool:
    return env(name, "1" if default else "0").lower() in {"1", "true", "yes", "on"}


def env_list(name: str, default: str = "") -> list[str]:
    return [part.strip() for part in env(name, default).split(",") if part.strip()]


DEBUG = env_bool("SLIPWAY_DEBUG")
# Without a key sessions and signed tokens last as long as the process: safe, and visibly unfit for more than one.
SECRET_KEY = env("SLIPWAY_SECRET_KEY") or os.urandom(32).hex()
ALLOWED_HOSTS = env_list("SLIPWAY_ALLOWED_HOSTS", "127.0.0.1,localhost")
SLIPWAY_URL = env("SLIPWAY_URL", "http://127.0.0.1:8000")
# Behind a proxy that ends TLS a page's origin is not the one that Django sees: the address people use counts.
CSRF_TRUSTED_ORIGINS = [
    "{0.scheme}://{0.netloc}".format(urlsplit(SLIPWAY_URL)),
    *env_list("SLIPWAY_CSRF_TRUSTED_ORIGINS"),
]
SECURE_COOKIES = SLIPWAY_URL.startswith("https://")
# Only where every request comes through a proxy that overwrites these headers: else callers could write them.
TRUST_PROXY = env_bool("SLIPWAY_TRUST_PROXY")
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TRUST_PROXY else None
# The address that limits of failed logins count: what the proxy appended to X-Forwarded-For.
ALLAUTH_TRUSTED_PROXY_COUNT = 1 if TRUST_PROXY else 0

# What Slipway talks to.
PROMETHEUS_URL = env("PROMETHEUS_URL", "http://127.0.0.1:9090")
GATEWAY_URL = env("GATEWAY_URL", "http://127.0.0.1:8081")
GATEWAY_PUBLIC_URL = env("GATEWAY_PUBLIC_URL", GATEWAY_URL)
# What the gateway shows when it reports what keys used; without it nobody can.
GATEWAY_TOKEN = env("SLIPWAY_GATEWAY_TOKEN")
# The gateway sends answers by `manage.py meter`, which counts tokens without any report.
METER = env_bool("SLIPWAY_METER")
HUB_URL = env("HUB_URL", "https://huggingface.co")
# S3 servers that an operator vouches for: their addresses may be private. Others must be public.
OBJECT_STORES = env_list("OBJECT_STORES")
GS_URL = env("GS_URL", "https://storage.googleapis.com")
# Of Workload Identity: the Google account that pods of a team read buckets as, with {team} for the team.
GS_SERVICE_ACCOUNT = env("GS_SERVICE_ACCOUNT")
# The same for servers of plain downloads, and the registries that are asked for the digests of tags.
DOWNLOAD_SERVERS = env_list("DOWNLOAD_SERVERS")
OCI_REGISTRIES = env_list("OCI_REGISTRIES")
# Where images with weights may come from, beside those: hosts, or places below one. With neither there are none.
SLIPWAY_OCI_REGISTRIES = env_list("SLIPWAY_OCI_REGISTRIES")
if wrong := [entry for entry in SLIPWAY_OCI_REGISTRIES if not REGISTRY.fullmatch(entry)]:
    raise ImproperlyConfigured(
        f"SLIPWAY_OCI_REGISTRIES: {wrong[0]!r} is no registry, as registry.example.com or registry.example.com/models."
    )
# Images with weights that the request form offers to begin with, each with the folder where they lie (/models).
OCI_EXAMPLES = [entry.split() for entry in env_list("SLIPWAY_OCI_EXAMPLES")]
if wrong := [" ".join(entry) for entry in OCI_EXAMPLES if not EXAMPLE.fullmatch(" ".join(entry))]:
    raise ImproperlyConfigured(
        f"SLIPWAY_OCI_EXAMPLES: {wrong[0]!r} is no image by digest, as oci://registry.example.com/models/chat@sha256:… "
        "with 64 hex digits, and the folder after a space where it is not /models."
    )
# Registries of models, whose entries are resolved to the address of an artifact; asked without a login.
MLFLOW_URL = env("MLFLOW_URL")
MODEL_REGISTRY_URL = env("MODEL_REGISTRY_URL")
# Values of credentials are sealed to the workers: web has the public key, and workers alone the private ones.
SEAL_PUBLIC_KEY = env("SLIPWAY_SEAL_PUBLIC_KEY")
SEAL_PRIVATE_KEYS = env_list("SLIPWAY_SEAL_PRIVATE_KEYS")
REDIS_URL = env("REDIS_URL", "redis://127.0.0.1:6379/0")
KUBECONFIG_WORKER = env("KUBECONFIG_WORKER")
KUBECONFIG_WATCHER = env("KUBECONFIG_WATCHER")
KUBECONFIG_LIVE = env("KUBECONFIG_LIVE")
SLIPWAY_INSTALL_ID = env("SLIPWAY_INSTALL_ID", "slipway")
# Pages say that the cluster is played by this machine.
SLIPWAY_SANDBOX = env_bool("SLIPWAY_SANDBOX")
# The cluster mounts images although it is too old to do so by default: Kubernetes 1.33 or 1.34 with the gate on.
SLIPWAY_IMAGE_VOLUMES = env_bool("SLIPWAY_IMAGE_VOLUMES")
# Nodes with GPUs are added when pods wait for them: a wish for more than there are may be sent.
SLIPWAY_CLUSTER_GROWS = env_bool("SLIPWAY_CLUSTER_GROWS")
# NAME or NAME:MODE of the storage class for weights that are fetched ahead; else the one that several nodes can mount.
SLIPWAY_CACHE_CLASS = env("SLIPWAY_CACHE_CLASS")
# The most memory of a container that fetches weights, as 8Gi.
FETCH_MEMORY = env("SLIPWAY_FETCH_MEMORY", "8Gi")
# The OpenAPI document for whoever asks; else for those who sign in or send a token.
SLIPWAY_PUBLIC_SCHEMA = env_bool("SLIPWAY_PUBLIC_SCHEMA")
PROMETHEUS_SCRAPE_INTERVAL = int(env("PROMETHEUS_SCRAPE_INTERVAL", "15"))
# Days after which a request that nobody decided about ends.
REQUEST_EXPIRY_DAYS = int(env("SLIPWAY_REQUEST_EXPIRY_DAYS", "14"))
# Days before the end of a grant on which its team is told.
QUOTA_WARNING_DAYS = int(env("SLIPWAY_QUOTA_WARNING_DAYS", "7"))

# Where Slipway's neighbours stand on the cluster: deployments.services.platform puts these into what it builds.
GATEWAY_REF = env("GATEWAY_REF", "kserve/kserve-ingress-gateway")
# NAMESPACE/LABEL=VALUE,…; without it every pod in the Gateway's namespace may reach the engines.
GATEWAY_PODS = env("GATEWAY_PODS", "")
MONITORING_NAMESPACE = env("MONITORING_NAMESPACE", "monitoring")
SLIPWAY_NAMESPACE = env("SLIPWAY_NAMESPACE", "slipway-system")
CLUSTER_CIDRS = env_list("CLUSTER_CIDRS", "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16")

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django.contrib.postgres",
    "allauth",
    "allauth.account",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "allauth.mfa",
    "rest_framework",
    "drf_spectacular",
    "django_htmx",
    "template_partials",
    "csp",
    "portal.apps.PortalConfig",
    "deployments.apps.DeploymentsConfig",
    "monitoring.apps.MonitoringConfig",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "portal.middleware.RequestIdMiddleware",
    # Before anything that looks at the host or the session: probes name neither.
    "portal.middleware.HealthMiddleware",
    "portal.middleware.PlainAddressMiddleware",
    "portal.middleware.BodyMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "portal.sessions.SessionAgeMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "portal.second_factor.SecondFactorMiddleware",
]

ROOT_URLCONF = "portal.urls"
ASGI_APPLICATION = "portal.asgi.application"
WSGI_APPLICATION = "portal.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "portal.context.site",
            ],
        },
    }
]


def database_from_url(url: str) -> dict[str, object]:
    """Return Django's settings for a postgres:// URL. Only web and live use the pool (SLIPWAY_DB_POOL=1)."""
    parts = urlsplit(url)
    options: dict[str, object] = {"connect_timeout": 5}
    if env_bool("SLIPWAY_DB_POOL"):
        # Somebody waits for what web and live ask; workers and migrations may take their time.
        if seconds := float(env("SLIPWAY_DB_STATEMENT_SECONDS", "10")):
            options["options"] = f"-c statement_timeout={seconds * 1000:.0f}"
        options["pool"] = {"min_size": 1, "max_size": int(env("SLIPWAY_DB_POOL_SIZE", "8")), "timeout": 5}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path.lstrip("/"),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": str(parts.port or ""),
        "CONN_MAX_AGE": 0 if "pool" in options else 600,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": options,
    }


DATABASES = {"default": database_from_url(env("DATABASE_URL", "postgres://slipway:slipway@127.0.0.1:5432/slipway"))}
# For `manage.py migrate` alone, run as the owner of the database: the role as which everything else runs.
APP_ROLE = env("SLIPWAY_APP_ROLE", "")
APP_PASSWORD = env("SLIPWAY_APP_PASSWORD", "")
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "deployments.User"
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "overview"
ACCOUNT_ADAPTER = "portal.accounts.AccountAdapter"
SOCIALACCOUNT_ADAPTER = "portal.accounts.SingleSignOnAdapter"
ACCOUNT_LOGIN_METHODS = {"username"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_LOGOUT_REDIRECT_URL = "account_login"
SOCIALACCOUNT_ONLY = False
SOCIALACCOUNT_PROVIDERS = (
    {
        "openid_connect": {
            "APPS": [
                {
                    "provider_id": "oidc",
                    "name": env("OIDC_NAME", "Single sign-on"),
                    "client_id": env("OIDC_CLIENT_ID"),
                    "secret": env("OIDC_CLIENT_SECRET"),
                    "settings": {
                        "server_url": env("OIDC_SERVER_URL"),
                        "scope": env_list("OIDC_SCOPES", "openid,profile,email"),
                        "oauth_pkce_enabled": True,
                    },
                }
            ]
        }
    }
    if env("OIDC_SERVER_URL")
    else {}
)
# The claim that names somebody's groups; what groups give is in rules that admins make.
OIDC_GROUPS_CLAIM = env("OIDC_GROUPS_CLAIM", "groups")
# Who gets an account by single sign-on: all, or only people of a group that a rule speaks of.
OIDC_SIGNUP = env("SLIPWAY_OIDC_SIGNUP", "all")
if OIDC_SIGNUP not in {"all", "groups"}:
    raise ImproperlyConfigured("SLIPWAY_OIDC_SIGNUP is “all” or “groups”.")
# People whom an invitation reached make themselves a local account.
SIGNUP_BY_INVITATION = env_bool("SLIPWAY_SIGNUP_BY_INVITATION")
# A second factor is everybody's choice; this asks it of platform admins who sign in with a password.
ADMINS_NEED_SECOND_FACTOR = env_bool("SLIPWAY_ADMINS_NEED_SECOND_FACTOR")
MFA_ADAPTER = "portal.second_factor.SecondFactorAdapter"
MFA_SUPPORTED_TYPES = ["totp", "recovery_codes"]
MFA_TOTP_ISSUER = "Slipway"
# Addresses that nobody has verified decide nothing here.
MFA_ALLOW_UNVERIFIED_EMAIL = True
ACCOUNT_RATE_LIMITS = {"login_failed": "10/m/ip,5/5m/key"}

# A session ends so long after it began, whatever happens in it, and so long after somebody last did something.
SESSION_LASTS = timedelta(hours=float(env("SLIPWAY_SESSION_HOURS", "12")))
SESSION_IDLE = timedelta(minutes=float(env("SLIPWAY_SESSION_IDLE_MINUTES", "60")))
# What groups give counts so long after the single sign-on that told of them, for sessions and tokens alike.
GROUP_RIGHTS_LAST = timedelta(hours=float(env("SLIPWAY_GROUP_RIGHTS_HOURS", "12")))
SESSION_COOKIE_AGE = int(SESSION_LASTS.total_seconds())
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_COOKIES
# Browsers take names that begin so only over TLS and from this very host: no neighbour of the domain can set them.
COOKIE_PREFIX = "__Host-" if SECURE_COOKIES else ""
SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = f"{COOKIE_PREFIX}sessionid", f"{COOKIE_PREFIX}csrftoken"
# Pages carry the token themselves; no script reads the cookie.
CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "font-src": ["'self'"],
        "connect-src": ["'self'"],
        "form-action": ["'self'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
    }
}

LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True

STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
# Collected files are served compressed and under names that carry their hash; without a folder for them (demo, tests)
# they come from where they lie.
STATIC_ROOT = env("SLIPWAY_STATIC_ROOT") or None
WHITENOISE_USE_FINDERS = WHITENOISE_AUTOREFRESH = not STATIC_ROOT
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"
        if STATIC_ROOT
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024
DATA_UPLOAD_MAX_NUMBER_FIELDS = 500

CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "deployments.api.auth.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["deployments.api.rendering.OrjsonRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "EXCEPTION_HANDLER": "deployments.api.problems.problem_handler",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    # A parameter like any other: where it means nothing it is refused.
    "URL_FORMAT_OVERRIDE": None,
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Slipway API",
    "VERSION": "1",
    "DESCRIPTION": "Ask for models, approve them, watch them and call them.",
    "SERVE_INCLUDE_SCHEMA": False,
    "ENUM_NAME_OVERRIDES": {
        "DeploymentState": "deployments.models.Deployment.State",
        "QuotaRequestState": "deployments.models.QuotaRequest.State",
        "CredentialKind": "deployments.models.Credential.Kind",
        "CredentialState": "deployments.models.Credential.State",
        "ApprovalKind": "deployments.services.inbox.KINDS",
        "RoleEnum": "deployments.models.Membership.Role",
    },
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "deployments.api.openapi.with_idempotency",
    ],
}

# Mail: by SMTP, or as files in a folder; with neither there is none, and notices are on the site alone.
EMAIL_HOST = env("EMAIL_HOST")
EMAIL_PORT = int(env("EMAIL_PORT", "587"))
EMAIL_HOST_USER = env("EMAIL_HOST_USER")
EMAIL_HOST_PASSWORD = env("EMAIL_HOST_PASSWORD")
EMAIL_USE_TLS = env_bool("EMAIL_USE_TLS", EMAIL_PORT == 587)
EMAIL_USE_SSL = env_bool("EMAIL_USE_SSL", EMAIL_PORT == 465)
EMAIL_TIMEOUT = 10
EMAIL_FILE_PATH = env("EMAIL_FILE_PATH")
DEFAULT_FROM_EMAIL = env("EMAIL_FROM", "slipway@localhost")
EMAIL_BACKEND = "django.core.mail.backends.{}.EmailBackend".format(
    "filebased" if EMAIL_FILE_PATH else "smtp" if EMAIL_HOST else "dummy"
)
SENDS_MAIL = bool(EMAIL_FILE_PATH or EMAIL_HOST)

# Messages are hints (docs/reconciling.md): publishing never waits for Redis, and nothing is kept in it.
CELERY_BROKER_URL = REDIS_URL
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_BROKER_TRANSPORT_OPTIONS = {
    # A broker that hangs costs a page half a second; workers wait in their event loop and do not meet this.
    "socket_timeout": 0.5,
    "socket_connect_timeout": 0.5,
    "retry_on_timeout": False,
    # Or each hint waits six seconds for a broker that is away.
    "max_retries": 0,
    "visibility_timeout": 120,
}
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_TIME_LIMIT = 90
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_DB_REUSE_MAX = 1000
CELERY_TASK_ROUTES: dict[str, object] = {}
CELERY_BEAT_SCHEDULE = {
    "sweep": {"task": "deployments.sweep", "schedule": timedelta(seconds=3), "options": {"expires": 3}},
    "sweep-probes": {
        "task": "deployments.sweep_probes",
        "schedule": timedelta(seconds=5),
        "options": {"expires": 5},
    },
    "seal-audit": {"task": "deployments.seal_audit", "schedule": timedelta(minutes=1), "options": {"expires": 60}},
    "sweep-mail": {"task": "deployments.sweep_mail", "schedule": timedelta(seconds=20), "options": {"expires": 20}},
}

# One line per outcome; JSON where a collector reads them.
LOG_RENDERER = (
    structlog.processors.JSONRenderer()
    if env_bool("SLIPWAY_LOG_JSON")
    else structlog.dev.ConsoleRenderer(
        colors=False,
        # The default one prints the values of local variables, secrets too, and takes seconds.
        exception_formatter=structlog.dev.plain_traceback,
    )
)
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": structlog.stdlib.ProcessorFormatter,
            "processor": LOG_RENDERER,
            "foreign_pre_chain": [
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
            ],
        }
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": env("SLIPWAY_LOG_LEVEL", "INFO")},
    "loggers": {
        "django.request": {"level": "ERROR"},
        "httpx": {"level": "WARNING"},
        # Two lines per message, mostly of sweeps, would bury what workers have to say.
        "celery.worker.strategy": {"level": "WARNING"},
        "celery.app.trace": {"level": "WARNING"},
    },
}
