//! The guides of `deploy/` and `k8s/`: what they link to is there.

use super::tools::{repository, text_of};

const GUIDES: [&str; 2] = ["deploy/README.md", "k8s/README.md"];

/// The anchors of a page, as they are made from its headings.
fn anchors(text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || [' ', '-'].contains(c))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    for guide in GUIDES {
        let text = text_of(guide);
        let (folder, _) = guide.split_once('/').unwrap();
        let mut links = 0;
        for link in text.split("](").skip(1) {
            let target = link.split(')').next().unwrap();
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let page = if path.is_empty() {
                guide.to_owned()
            } else {
                format!("{folder}/{path}")
            };
            assert!(repository(&page).exists(), "{guide}: {target}");
            if !anchor.is_empty() {
                let known = anchors(&text_of(&page));
                assert!(known.iter().any(|name| name == anchor), "{guide}: {target}");
            }
            links += 1;
        }
        assert!(links > 5, "{guide} has {links} links");
    }
}

#[test]
fn every_folder_of_deploy_is_explained() {
    let text = text_of("deploy/README.md");
    for entry in std::fs::read_dir(repository("deploy")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        // Secrets are an operator's own.
        assert!(
            name == "secrets" || text.contains(&name),
            "deploy/README.md does not explain {name}"
        );
    }
}
