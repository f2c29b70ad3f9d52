//! The site that `deploy/site/build` builds from the pages, as a phone shows it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::tools::{python_tool, repository, run, tools};
use crate::demo::Browser;

/// The width of a phone, in CSS pixels.
const PHONE: u32 = 390;

/// Pages with long names, wide tables and long lines.
const PAGES: [&str; 8] = [
    "index.html",
    "crates/README.html",
    "crates/curfew-protocol/PROTOCOL.html",
    "crates/curfew/CONFIG.html",
    "crates/curfew/METRICS.html",
    "deploy/README.html",
    "files/deploy/haproxy/haproxy.cfg.html",
    "k8s/README.html",
];

/// Script that loads a URL in a frame of the given width, and returns the width of the content.
const WIDTH_OF: &str = "const [address, width, done] = arguments;
    const frame = document.createElement('iframe');
    frame.style.width = `${width}px`;
    frame.style.height = '800px';
    frame.style.border = '0';
    frame.onload = () => done(frame.contentDocument.documentElement.scrollWidth);
    frame.src = address;
    document.body.replaceChildren(frame);";

/// A built site, and a server that serves it on the loopback interface.
struct Site {
    folder: TempDir,
    server: Child,
    address: String,
}

impl Site {
    fn build() -> Self {
        let folder = tempfile::tempdir().unwrap();
        build(&repository(""), folder.path());
        let mut server = python_tool("python")
            .args(["-u", "-m", "http.server", "--bind", "127.0.0.1", "0"])
            .arg("--directory")
            .arg(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Python has a server");
        // The server prints "Serving HTTP on 127.0.0.1 port 40001 (http://127.0.0.1:40001/) ...".
        let mut line = String::new();
        BufReader::new(server.stdout.take().expect("stdout is piped"))
            .read_line(&mut line)
            .expect("the server prints its address");
        let address = line.split(['(', ')']).nth(1).expect("an address");
        let address = address.to_owned();
        Self {
            folder,
            server,
            address,
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
    }
}

fn builder(root: &Path, into: &Path) -> Command {
    let mut command = Command::new("bash");
    command
        .arg(root.join("deploy/site/build"))
        .arg(into)
        .env("CURFEW_TOOLS", tools().canonicalize().unwrap());
    command
}

fn build(root: &Path, into: &Path) {
    run(&mut builder(root, into)).content();
}

#[tokio::test]
async fn the_site_fits_a_phone_and_finds_what_is_searched() {
    let site = Site::build();
    let browser = Browser::start().await;
    browser.open(&site.address).await;
    for page in PAGES {
        let path = site.folder.path().join(page);
        assert!(path.is_file(), "{page} is not built");
        let arguments = vec![format!("{}{page}", site.address).into(), PHONE.into()];
        let width = browser.client.execute_async(WIDTH_OF, arguments).await;
        let width = width.unwrap();
        assert!(
            width.as_u64() <= Some(PHONE.into()),
            "{page} is {width} pixels wide"
        );
    }

    let search = format!("{}search.html?q=revoked", site.address);
    browser.client.goto(&search).await.unwrap();
    let found = async || {
        let script =
            "return [...document.querySelectorAll('#search-results li a')].map((a) => a.href)";
        let links = browser.client.execute(script, Vec::new()).await.unwrap();
        let links: Vec<Value> = serde_json::from_value(links).unwrap();
        let is_protocol = |link: &Value| link.as_str().unwrap().contains("PROTOCOL.html");
        links.len() > 5 && links.iter().any(is_protocol)
    };
    browser.until("pages about `revoked`", found).await;
}

/// A repository with two pages and the site's builder. `front` is the front page.
fn two_pages(front: &str) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let site = root.path().join("deploy/site");
    std::fs::create_dir_all(site.join("static")).unwrap();
    for file in [
        "build",
        "conf.py",
        "repository.py",
        "static/curfew.css",
        "static/icon.svg",
    ] {
        std::fs::copy(repository("deploy/site").join(file), site.join(file)).unwrap();
    }
    std::fs::write(root.path().join("README.md"), front).unwrap();
    std::fs::write(
        root.path().join("deploy/README.md"),
        "# Other\n\n## A part\n",
    )
    .unwrap();
    root
}

#[test]
fn a_link_that_leads_nowhere_fails_the_build() {
    let sound = two_pages(
        "# Front\n\n[other](deploy/README.md#a-part), [the builder](deploy/site/build)\n",
    );
    build(sound.path(), &sound.path().join("out"));
    for (link, named) in [
        ("deploy/README.md#another-part", "another-part"),
        ("deploy/gone.md", "deploy/gone"),
        ("deploy/gone", "deploy/gone"),
        ("#nothing", "nothing"),
    ] {
        let root = two_pages(&format!("# Front\n\n[broken]({link})\n"));
        let into: PathBuf = root.path().join("out");
        let said = run(&mut builder(root.path(), &into));
        assert!(!said.content, "{link}");
        assert!(said.stderr.contains(named), "{link}: {}", said.stderr);
    }
}
