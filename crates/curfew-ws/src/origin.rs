//! The origins from which web pages may connect. The check of the origin prevents cross-site
//! WebSocket hijacking (RFC 6455 §10.2).

use std::net::Ipv6Addr;

/// Start of an entry's host. The entry stands for all subdomains of the rest of the host.
const SUBDOMAINS: &str = "*.";

/// The origin of every sandboxed frame, and in most browsers of every local file.
const NULL: &str = "null";

/// The origin of local files in programs that embed a browser.
const FILE: &str = "file://";

/// The origins from which web pages may connect. Scheme, host and port are compared exactly, except
/// for letter case and default ports. Subdomains match only an entry whose host starts with `*.`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OriginPolicy {
    /// The entries; an empty list allows any origin.
    allowed: Vec<Allowed>,
}

/// One entry of the list, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Allowed {
    /// Exactly this origin.
    One(Origin<String>),
    /// Every subdomain of this host at any depth, but not the host itself.
    Subdomains(Origin<String>),
    /// An origin that identifies no site. A page of any site can have this origin.
    Opaque(&'static str),
}

impl Allowed {
    /// True if the entry allows `origin`. `required` is true if the browser adds a credential to
    /// the request by itself.
    fn is(&self, origin: &str, required: bool) -> bool {
        let (listed, host_is) = match self {
            // Such an origin is not allowed with a cookie: a page of any site can have the origin,
            // and the browser would add the user's cookies.
            Self::Opaque(opaque) => return !required && *opaque == origin,
            Self::One(listed) => (listed, str::eq_ignore_ascii_case as fn(&str, &str) -> bool),
            Self::Subdomains(listed) => (listed, is_subdomain as fn(&str, &str) -> bool),
        };
        Origin::parse(origin).is_ok_and(|origin| {
            listed.scheme.eq_ignore_ascii_case(origin.scheme)
                && host_is(origin.host, &listed.host)
                && listed.port == origin.port
        })
    }
}

/// True if `host` is a subdomain of `of`, at any depth.
fn is_subdomain(host: &str, of: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let labels = host
        .strip_suffix(of)
        .and_then(|rest| rest.strip_suffix('.'));
    labels.is_some_and(|labels| labels.split('.').all(|label| !label.is_empty()))
}

/// An origin. `port` is `None` only if the scheme has no default port.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin<S> {
    scheme: S,
    host: S,
    port: Option<u16>,
}

impl OriginPolicy {
    /// Parses `server.allowed_origins`. Each entry is `null`, `file://`, `scheme://host` or
    /// `scheme://host:port`. The host may begin with `*.`. An empty list allows any origin.
    ///
    /// # Errors
    ///
    /// The error has the index of every invalid entry, with the entry's problem.
    pub fn parse(entries: &[String]) -> Result<Self, Vec<(usize, String)>> {
        let mut allowed = Vec::with_capacity(entries.len());
        let mut problems = Vec::new();
        for (at, entry) in entries.iter().enumerate() {
            match parse_entry(entry) {
                Ok(entry) => allowed.push(entry),
                Err(problem) => problems.push((at, format!("{entry:?} {problem}"))),
            }
        }
        if problems.is_empty() {
            Ok(Self { allowed })
        } else {
            Err(problems)
        }
    }

    /// True if any origin may connect.
    pub fn allows_any(&self) -> bool {
        self.allowed.is_empty()
    }

    /// True if a request with this `Origin` header may connect.
    ///
    /// A program that is not a browser sends no `Origin` header, so the header may be absent unless
    /// `required` is true. `required` is true if the browser adds the credential, a cookie, by
    /// itself. If `required` is true, only a listed origin of a site is allowed, never `null` or
    /// `file://`.
    pub fn allows(&self, origin: Option<&str>, required: bool) -> bool {
        if self.allows_any() {
            // If the browser has added a credential, a policy that allows any origin does not
            // protect the credential.
            return !required;
        }
        let Some(origin) = origin else {
            return !required;
        };
        self.allowed
            .iter()
            .any(|allowed| allowed.is(origin, required))
    }
}

/// An origin in the form that browsers send (RFC 6454 §6.2): in lower case, without a default port.
/// `None` if the text is neither `scheme://host` nor `scheme://host:port`; `null` is neither.
pub fn canonical_origin(text: &str) -> Option<String> {
    let Origin { scheme, host, port } = Origin::parse(text).ok()?;
    let port = port
        .filter(|_| port != default_port(scheme))
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    Some(format!("{scheme}://{host}{port}").to_ascii_lowercase())
}

impl<'a> Origin<&'a str> {
    /// Parses an origin.
    fn parse(text: &'a str) -> Result<Self, &'static str> {
        let (scheme, authority) = text
            .split_once("://")
            .filter(|(scheme, _)| is_scheme(scheme))
            .ok_or("is not scheme://host or scheme://host:port")?;
        if authority.contains(['/', '?', '#']) {
            return Err("has a path: an origin ends with the host or the port, without a slash");
        }
        if authority.contains('@') {
            return Err("has a user name: an origin has none");
        }
        // The colons of an IPv6 address lie within its brackets.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        if !is_host(host) {
            return Err("has no valid host: write names in ASCII, IPv6 addresses in brackets");
        }
        let port = match port {
            None => default_port(scheme),
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(port.parse().map_err(|_| INVALID_PORT)?)
            }
            Some(_) => return Err(INVALID_PORT),
        };
        Ok(Self { scheme, host, port })
    }
}

const INVALID_PORT: &str = "has an invalid port: a port is a number from 0 to 65535";

/// Parses one entry of `server.allowed_origins`.
fn parse_entry(entry: &str) -> Result<Allowed, &'static str> {
    if let Some(opaque) = [NULL, FILE].into_iter().find(|opaque| *opaque == entry) {
        return Ok(Allowed::Opaque(opaque));
    }
    let (text, subdomains) = match entry.split_once("://") {
        Some((scheme, host)) if host.starts_with(SUBDOMAINS) => {
            (format!("{scheme}://{}", &host[SUBDOMAINS.len()..]), true)
        }
        _ => (entry.to_owned(), false),
    };
    if text.contains('*') {
        return Err(
            "has a wildcard that is not the first label of the host: https://*.example.com matches every subdomain of example.com; leave the list empty to allow every origin",
        );
    }
    let origin = Origin::parse(&text)?;
    if ["ws", "wss"].contains(&origin.scheme.to_ascii_lowercase().as_str()) {
        return Err(
            "has the wrong scheme: the scheme of an origin is that of the page, http or https",
        );
    }
    if subdomains && !origin.host.contains('.') && !origin.host.eq_ignore_ascii_case("localhost") {
        return Err("matches every site of a top-level domain: name at least two labels after *.");
    }
    let origin = Origin {
        scheme: origin.scheme.to_ascii_lowercase(),
        host: origin.host.to_ascii_lowercase(),
        port: origin.port,
    };
    Ok(match subdomains {
        true => Allowed::Subdomains(origin),
        false => Allowed::One(origin),
    })
}

/// True for a scheme of RFC 3986 §3.1.
fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// True for a host name in ASCII, or an IPv6 address in brackets.
fn is_host(host: &str) -> bool {
    match host.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
        }
    }
}

/// The default port of `http` or `https`; `None` for another scheme.
fn default_port(scheme: &str) -> Option<u16> {
    if scheme.eq_ignore_ascii_case("https") {
        Some(443)
    } else if scheme.eq_ignore_ascii_case("http") {
        Some(80)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(entries: &[&str]) -> Result<OriginPolicy, Vec<(usize, String)>> {
        let entries: Vec<String> = entries.iter().map(|entry| (*entry).to_owned()).collect();
        OriginPolicy::parse(&entries)
    }

    #[test]
    fn origins_match_by_scheme_host_and_port_only() {
        let policy = policy(&[
            "https://app.example.com",
            "http://Localhost:5173",
            "http://[::1]:80",
            "chrome-extension://abcdef",
        ])
        .unwrap();
        for (origin, allowed) in [
            ("https://app.example.com", true),
            ("https://APP.EXAMPLE.COM", true),
            ("HTTPS://app.example.com:443", true),
            ("http://localhost:5173", true),
            ("http://[::1]", true),
            ("chrome-extension://abcdef", true),
            ("http://app.example.com", false),
            ("https://app.example.com:8443", false),
            ("https://app.example.com:80", false),
            ("https://app.example.com.evil.tld", false),
            ("https://app.example.com.", false),
            ("https://evil.tld/?https://app.example.com", false),
            ("https://app.example.com@evil.tld", false),
            ("https://app.example.com#", false),
            ("https://evil.app.example.com", false),
            ("https://xapp.example.com", false),
            ("https://app.example.com:+443", false),
            ("https://app.example.com:", false),
            ("https://app.example.com:65979", false),
            ("http://localhost", false),
            ("http://[::1]:81", false),
            ("http://::1", false),
            ("app.example.com", false),
            ("null", false),
            ("", false),
        ] {
            assert_eq!(policy.allows(Some(origin), false), allowed, "{origin}");
            assert_eq!(policy.allows(Some(origin), true), allowed, "{origin}");
        }
        assert!(policy.allows(None, false));
        assert!(!policy.allows(None, true));
    }

    #[test]
    fn subdomains_and_opaque_origins_are_allowed_where_they_are_named() {
        let policy = policy(&[
            "https://*.example.com",
            "http://*.localhost:5173",
            "null",
            "file://",
        ])
        .unwrap();
        for (origin, allowed, by_cookie) in [
            ("https://a.example.com", true, true),
            ("https://A.b.Example.com:443", true, true),
            ("http://app.localhost:5173", true, true),
            ("https://example.com", false, false),
            ("https://.example.com", false, false),
            ("https://a..example.com", false, false),
            ("https://aexample.com", false, false),
            ("https://a.example.com.evil.tld", false, false),
            ("https://a.example.com:8443", false, false),
            ("http://a.example.com", false, false),
            ("https://*.example.com", false, false),
            ("null", true, false),
            ("NULL", false, false),
            ("file://", true, false),
            ("file:///etc/passwd", false, false),
        ] {
            assert_eq!(policy.allows(Some(origin), false), allowed, "{origin}");
            assert_eq!(policy.allows(Some(origin), true), by_cookie, "{origin}");
        }
        for bad in [
            "https://*.com",
            "https://*",
            "https://*.*.example.com",
            "https://*.",
            "https://*.example.com/",
        ] {
            let entries = [bad.to_owned()];
            assert!(OriginPolicy::parse(&entries).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_origin_has_one_form() {
        for (origin, form) in [
            ("https://app.example", Some("https://app.example")),
            ("HTTPS://App.Example:443", Some("https://app.example")),
            ("http://app.example:443", Some("http://app.example:443")),
            ("http://[::1]:80", Some("http://[::1]")),
            ("chrome-extension://abc", Some("chrome-extension://abc")),
            ("null", None),
            ("", None),
            ("https://app.example/", None),
            ("app.example", None),
        ] {
            assert_eq!(canonical_origin(origin).as_deref(), form, "{origin}");
        }
    }

    #[test]
    fn an_empty_list_allows_any_origin_but_never_a_cookie() {
        let policy = policy(&[]).unwrap();
        assert!(policy.allows_any());
        for origin in [None, Some("null"), Some("https://anywhere.example")] {
            assert!(policy.allows(origin, false), "{origin:?}");
            assert!(!policy.allows(origin, true), "{origin:?}");
        }
    }

    #[test]
    fn every_bad_entry_is_reported() {
        let problems = policy(&[
            "https://good.example",
            "NULL",
            "*",
            "https://a.*.example.com",
            "https://a.example/",
            "https://a.example/path",
            "app.example.com",
            "://x",
            "https://",
            "https://a.example:99999",
            "https://a.example:http",
            "https://user@a.example",
            "https://b\u{fc}cher.example",
            "https://a b",
            "http://::1",
            "wss://a.example",
            "",
        ])
        .unwrap_err();
        let at: Vec<usize> = problems.iter().map(|(at, _)| *at).collect();
        assert_eq!(at, (1..=16).collect::<Vec<_>>(), "{problems:?}");
        assert_eq!(
            problems[3].1,
            "\"https://a.example/\" has a path: an origin ends with the host or the port, without a slash"
        );
    }
}
