//! The console's files, compiled in: no other origin is asked for anything.

use super::{Reply, typed};
use hyper::StatusCode;
use hyper::header::{self, HeaderValue};

/// Scripts and styles are files of ours; nothing inline, nothing of others, no frame, no string made into markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      form-action 'none'; base-uri 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

macro_rules! files {
    ($($name:literal: $kind:ident),* $(,)?) => {
        &[$((concat!("/console/", $name), $kind, include_str!(concat!("console/", $name)))),*]
    };
}

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";
const INDEX: &str = include_str!("console/index.html");

const FILES: &[(&str, &str, &str)] = files![
    "api.js": SCRIPT,
    "app.js": SCRIPT,
    "audit.js": SCRIPT,
    "catalog.js": SCRIPT,
    "charts.js": SCRIPT,
    "console.css": STYLE,
    "deliveries.js": SCRIPT,
    "delivery.js": SCRIPT,
    "dom.js": SCRIPT,
    "events.js": SCRIPT,
    "format.js": SCRIPT,
    "forms.js": SCRIPT,
    "icon.svg": IMAGE,
    "overview.js": SCRIPT,
    "schema.js": SCRIPT,
    "settings.js": SCRIPT,
    "theme.js": SCRIPT,
    "webhookactions.js": SCRIPT,
    "webhookform.js": SCRIPT,
    "webhooks.js": SCRIPT,
];

/// The file at this path, if it is one of the console's.
pub(crate) fn file(path: &str) -> Option<Reply> {
    let (kind, content) = match path {
        "/" => ("text/html; charset=utf-8", INDEX),
        "/favicon.ico" => return file("/console/icon.svg"),
        path => FILES.iter().find(|(name, ..)| *name == path).map(|(_, kind, content)| (*kind, *content))?,
    };
    let mut reply = typed(StatusCode::OK, kind, content);
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert("permissions-policy", HeaderValue::from_static("camera=(), geolocation=(), microphone=()"));
    Some(reply)
}
