//! What a client calls itself, as it is shown: the product in its `User-Agent` that tells it from others.
//!
//! ```text
//!   Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0
//!                                                                                                         └──────────┘
//! ```
//!
//! Every browser begins with the names of older ones, and more than what is kept of a name
//! ([`LABEL`](crate::memory::slots::LABEL)). Other programs have their own name in front.

/// What browsers are known by. Of several in one agent the first in this list is the browser's own.
const BROWSERS: [&str; 13] = [
    "Home Assistant/",
    "Edg/",
    "EdgA/",
    "OPR/",
    "Vivaldi/",
    "SamsungBrowser/",
    "FxiOS/",
    "CriOS/",
    "Firefox/",
    "HeadlessChrome/",
    "Chrome/",
    // Safari, which has its version here.
    "Version/",
    "Safari/",
];

/// The product that tells the client from others: a part of `agent`, and all of it if it is no browser's.
pub fn product(agent: &str) -> &str {
    if !agent.starts_with("Mozilla/") {
        return agent;
    }
    let Some((at, name)) =
        BROWSERS.into_iter().find_map(|name| Some((position(agent, name)?, name)))
    else {
        // The last one is the most special.
        return agent.rsplit(' ').find(|word| word.contains('/')).unwrap_or(agent);
    };
    let product = agent.get(at..).unwrap_or_default();
    if name == "Version/" {
        return product;
    }
    let version = product.get(name.len()..).unwrap_or_default();
    let len = version.find(' ').unwrap_or(version.len());
    product.get(..name.len() + len).unwrap_or(product)
}

/// Where a product stands in an agent: at the beginning of a word.
fn position(agent: &str, name: &str) -> Option<usize> {
    let before = |at: usize| agent.get(..at).is_some_and(|before| before.ends_with(' '));
    agent.match_indices(name).map(|(at, _)| at).find(|at| before(*at))
}

#[cfg(test)]
mod tests {
    use super::product;
    use crate::memory::slots::LABEL;

    #[test]
    fn browsers_are_shown_by_their_own_name() {
        const KHTML: &str = "AppleWebKit/537.36 (KHTML, like Gecko)";
        const MAC: &str = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)";
        for (os, rest, shown) in [
            (
                "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101",
                "Firefox/140.0",
                "Firefox/140.0",
            ),
            (MAC, "Version/18.5 Safari/605.1.15", "Version/18.5 Safari/605.1.15"),
            (MAC, "CriOS/140.0.1 Mobile/15E148 Safari/604.1", "CriOS/140.0.1"),
            (KHTML, "Chrome/140.0.0.0 Safari/537.36", "Chrome/140.0.0.0"),
            (KHTML, "Chrome/140.0.0.0 Safari/537.36 Edg/140.0.1.2", "Edg/140.0.1.2"),
            (KHTML, "Chrome/119.0.0.0 Safari/537.36 OPR/105.0", "OPR/105.0"),
            (
                KHTML,
                "Version/4.0 Chrome/140.0 Mobile Safari/537.36 Home Assistant/2026.1-5 (Android 15)",
                "Home Assistant/2026.1-5",
            ),
            (KHTML, "Chrome/9 BambuStudio/2.0 NotChrome/1", "Chrome/9"),
            (KHTML, "HeadlessChrome/140.0 Safari/537.36", "HeadlessChrome/140.0"),
            (KHTML, "Epiphany/45", "Epiphany/45"),
        ] {
            let begin =
                if os.starts_with("Mozilla") { "" } else { "Mozilla/5.0 (X11; Linux x86_64) " };
            let agent = alloc::format!("{begin}{os} {rest}");
            assert_eq!(product(&agent), shown, "{agent}");
            assert!(shown.len() <= LABEL);
        }
    }

    #[test]
    fn other_programs_are_shown_as_they_call_themselves() {
        for agent in
            ["curl/8.5.0", "VLC/3.0.21 LibVLC/3.0.21", "HomeAssistant/2026.1 aiohttp/3.12", "", "é"]
        {
            assert_eq!(product(agent), agent);
        }
        for agent in
            ["Mozilla/", "Mozilla/5.0 (é Chrome/", "Mozilla/4.0 (x;", "Mozilla/5.0 Chrome/ é"]
        {
            assert!(agent.contains(product(agent)), "{agent}");
        }
    }
}
