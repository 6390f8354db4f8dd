//! Addresses: where a redirect leads, whether it stays with the hub, and what of an address a message may show.

/// Scheme, host and port of an address, without user and password.
fn origin(address: &str) -> Option<(String, String)> {
    let (scheme, rest) = address.split_once("://")?;
    let authority = rest.split(['/', '?', '#', '\\']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host).to_ascii_lowercase();
    let scheme = scheme.to_ascii_lowercase();
    let port = match scheme.as_str() {
        "https" => ":443",
        _ => ":80",
    };
    Some((scheme, host.strip_suffix(port).map_or(host.clone(), str::to_string)))
}

/// Whether two addresses have one scheme, host and port.
pub(super) fn is_same_origin(one: &str, other: &str) -> bool {
    matches!((origin(one), origin(other)), (Some(one), Some(other)) if one == other)
}

/// The address to which the answer of `base` redirects; `None` if it is no address of the web.
pub(super) fn redirected(base: &str, location: &str) -> Option<String> {
    let (scheme, rest) = base.split_once("://")?;
    if location.contains("://") {
        let scheme = location.split("://").next()?.to_ascii_lowercase();
        return ["http", "https"].contains(&&*scheme).then(|| location.into());
    }
    if location.starts_with("//") {
        return Some(format!("{scheme}:{location}"));
    }
    let path = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    if location.starts_with('/') {
        return Some(format!("{scheme}://{}{location}", &rest[..path]));
    }
    let folder = rest.split(['?', '#']).next()?.rfind('/').filter(|at| *at >= path).unwrap_or(path);
    Some(format!("{scheme}://{}/{location}", &rest[..folder]))
}

/// A text with every user and password in an address replaced.
pub(super) fn masked(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || "/?#`'\"".contains(c)).unwrap_or(after.len());
        rest = match after[..end].rfind('@') {
            Some(user) => {
                shown.push_str("***");
                &after[user..]
            }
            None => after,
        };
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_port_or_scheme_is_another_origin() {
        let hub = "https://hub.example/models";
        for same in ["https://hub.example", "https://HUB.example:443/x", "https://u:p@hub.example/x?y"] {
            assert!(is_same_origin(hub, same), "{same}");
        }
        for other in [
            "https://hub.example:8443/x",
            "http://hub.example/x",
            "https://hub.example.evil.example",
            "https://hub.example@evil.example/",
            "https://evil.example\\@hub.example/",
            "hub.example",
        ] {
            assert!(!is_same_origin(hub, other), "{other}");
        }
    }

    #[test]
    fn redirects_are_resolved() {
        let base = "https://hub.example:81/a/b?c=d/e";
        for (location, address) in [
            ("https://cdn.example/x", Some("https://cdn.example/x")),
            ("//cdn.example/x", Some("https://cdn.example/x")),
            ("/x", Some("https://hub.example:81/x")),
            ("x?y", Some("https://hub.example:81/a/x?y")),
            ("file:///etc/passwd", None),
        ] {
            assert_eq!(redirected(base, location).as_deref(), address, "{location}");
        }
        assert_eq!(redirected("https://hub.example", "x").as_deref(), Some("https://hub.example/x"));
    }

    #[test]
    fn passwords_are_masked() {
        assert_eq!(
            masked("asked for https://user:p@ss@hub.example/a@b: no"),
            "asked for https://***@hub.example/a@b: no"
        );
        assert_eq!(masked("`http://u@h` and https://h/x"), "`http://***@h` and https://h/x");
        assert_eq!(masked("hf:a/b@main"), "hf:a/b@main");
    }
}
