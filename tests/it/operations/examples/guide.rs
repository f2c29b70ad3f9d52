//! The commands in `deploy/add-to-your-app.md` print the output that the page shows, and the page's
//! code is the code of the chats.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use curfew_testkit::{PATIENCE, WsClient};
use curfew_tests::{ADMIN_KEY, Dev, curfew_binary, free_port};
use serde_json::json;
use tokio::process::Command;

use super::{post, until_listening};
use crate::operations::tools::{repository, run, system_tool, text_of};

const PAGE: &str = "deploy/add-to-your-app.md";

/// The mark on the page for text that differs between runs.
const ELLIPSIS: &str = "…";

/// A command of the page, and the output that the page shows for it.
struct Step {
    command: String,
    output: String,
}

/// The blocks of code in `language` in the section `heading`.
fn blocks(heading: &str, language: &str) -> Vec<String> {
    let page = text_of(PAGE);
    let section = format!("\n## {heading}\n");
    let (_, section) = page.split_once(&section).expect("the page has the heading");
    all_blocks(section.split("\n## ").next().unwrap(), language)
}

fn all_blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let content = |block: &str| block.split("\n```").next().unwrap().to_owned();
    text.split(&fence).skip(1).map(content).collect()
}

/// The commands in the section `heading`, with the output that the page shows.
fn steps(heading: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in blocks(heading, "console").join("\n").lines() {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push(Step {
                command: command.to_owned(),
                output: String::new(),
            }),
            (None, Some(step)) => step.output += &format!("{line}\n"),
            (None, None) => panic!("{line:?} is printed by no command"),
        }
    }
    assert!(!steps.is_empty(), "{heading} has no commands");
    steps
}

/// True if `printed` has exactly the lines of `told`. The lines may be in any order, because lists
/// are not sorted. In a line of `told`, [`ELLIPSIS`] stands for any text.
fn is_as_told(told: &str, printed: &str) -> bool {
    let (told, mut printed) = (shapes(told), shapes(printed));
    told.len() == printed.len()
        && told.iter().all(|told| {
            let at = printed.iter().position(|line| fits(told, line));
            at.map(|at| printed.swap_remove(at)).is_some()
        })
}

/// The lines of `text` without the parts that differ between runs: ids, epochs, times, and the
/// width of columns.
fn shapes(text: &str) -> Vec<String> {
    let differs = |word: &&str| {
        let number = word.trim_end_matches(['h', 'm', 's']);
        let is_time = number != *word && number.bytes().all(|byte| byte.is_ascii_digit());
        let is_id = word.len() == 36 && word.matches('-').count() == 4;
        is_time || is_id || ["now", "in", "ago"].contains(word)
    };
    let shape = |line: &str| {
        let words = line.split_whitespace().filter(|word| !differs(word));
        let mut shape = words.collect::<Vec<_>>().join(" ");
        for (before, after) in [
            ("\"epoch\":\"", '"'),
            ("position: ", ':'),
            ("took_ms\":", '}'),
        ] {
            if let Some((head, tail)) = shape.split_once(before) {
                let (_, tail) = tail.split_once(after).unwrap_or_default();
                shape = format!("{head}{before}{after}{tail}");
            }
        }
        shape
    };
    text.lines().map(shape).collect()
}

fn fits(told: &str, printed: &str) -> bool {
    let parts: Vec<&str> = told.split(ELLIPSIS).map(str::trim).collect();
    let [first, middle @ .., last] = &*parts else {
        return told == printed;
    };
    let Some(mut rest) = printed.strip_prefix(first) else {
        return false;
    };
    for part in middle {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Runs the commands in the section `heading`, with `addresses` in place of the page's addresses.
pub(super) async fn assert_prints(
    heading: &str,
    addresses: &[(&str, SocketAddr)],
    variables: &[(&str, String)],
) {
    let ours = |text: &str| {
        addresses
            .iter()
            .fold(text.to_owned(), |text, (told, address)| {
                text.replace(told, &address.to_string())
            })
    };
    let programs = curfew_binary().parent().unwrap().display().to_string();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
    for Step { command, output } in steps(heading) {
        let finished = Command::new("bash")
            .args(["-c", &ours(&command)])
            .current_dir(repository(""))
            .env("PATH", &path)
            .env("NO_COLOR", "1")
            .env("no_proxy", "*")
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .output()
            .await
            .unwrap();
        let printed = String::from_utf8_lossy(&finished.stdout);
        let complaint = String::from_utf8_lossy(&finished.stderr);
        assert!(
            is_as_told(&ours(&output), &printed) && finished.status.success(),
            "{PAGE} says that {command} prints\n{output}\nand it prints\n{printed}{complaint}"
        );
    }
}

#[tokio::test]
async fn every_command_prints_what_the_guide_says() {
    let chat = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let started = steps("Run the chat").remove(0);
    let program = started.command.strip_prefix("curfew dev -- node ").unwrap();
    let (program, port) = (repository(program), format!("PORT={}", chat.port()));
    let program = program.to_str().unwrap();
    let dev = Dev::start_beside(&["env", &port, "node", program]).await;
    let said = dev.output().line(PATIENCE, |line| {
        line.starts_with("The chat is at").then_some(())
    });
    said.await.expect("the chat prints its address");
    let addresses = [
        ("127.0.0.1:8000", chat),
        ("127.0.0.1:8080", dev.address),
        ("127.0.0.1:9090", dev.admin),
    ];
    let told = addresses
        .iter()
        .fold(started.output, |text, (told, address)| {
            text.replace(told, &address.to_string())
        });
    let (told, printed) = (told.replace('\n', " "), dev.output().lines().join(" "));
    assert!(is_as_told(&told, &printed), "{told}\nis not\n{printed}");
    until_listening(chat).await;

    let variables = [
        ("CURFEW_ADMIN_URL", format!("http://{}", dev.admin)),
        ("CURFEW_ADMIN_KEY", dev.admin_key().await),
    ];
    let prints = async |heading| assert_prints(heading, &addresses, &variables).await;
    prints("1. A token").await;
    let mut alice = joined(&dev, chat, "alice").await;
    let mut bob = joined(&dev, chat, "bob").await;
    prints("2. Connect").await;
    prints("3. Publish by HTTP").await;
    for user in [&mut alice, &mut bob] {
        let lunch = json!({"type":"message","data":{"text":"Lunch is ready"}});
        assert!(user.expect_json(lunch).await.get("from").is_none());
    }
    for (name, user) in [("alice", &mut alice), ("bob", &mut bob)] {
        let token = post(chat, "/token", json!({"user":name})).await["token"].clone();
        let refresh = json!({"type":"refresh","id":2,"token":token});
        user.send(refresh).await;
        user.expect_json(json!({"type":"refreshed","id":2})).await;
    }
    prints("4. Refresh").await;
    prints("5. Revoke").await;
    alice.expect_close(4403, "revoked").await;
    joined(&dev, chat, "alice").await;
}

/// A session of `user` in the chat.
async fn joined(dev: &Dev, chat: SocketAddr, user: &str) -> WsClient {
    let token = post(chat, "/token", json!({"user":user})).await;
    let connect = dev.ws().bearer(token["token"].as_str().unwrap());
    let mut client = connect.open().await;
    client
        .expect_json(json!({"type":"connected","user":user}))
        .await;
    let subscribe = json!({"type":"subscribe","id":1,"channel":"room:lobby"});
    client.send(subscribe).await;
    client.expect_json(json!({"type":"ok","id":1})).await;
    client
}

#[test]
fn the_code_of_the_guide_is_that_of_the_chats() {
    for (language, files) in [
        ("js", &["chat/server.mjs", "chat/page.html"][..]),
        ("python", &["chat-python/app.py"]),
    ] {
        let texts = files
            .iter()
            .map(|file| text_of(&format!("deploy/examples/{file}")));
        let text = texts.collect::<String>();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let blocks = all_blocks(&text_of(PAGE), language);
        assert!(!blocks.is_empty());
        for line in blocks.join("\n").lines() {
            assert!(lines.contains(&line.trim()), "{files:?} has no line {line}");
        }
    }
}

#[test]
fn the_commands_of_the_deploy_are_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let secrets = folder.path().join("deploy/secrets");
    std::fs::create_dir_all(&secrets).unwrap();
    let examples = folder.path().join("deploy/examples");
    std::os::unix::fs::symlink(
        repository("deploy/examples").canonicalize().unwrap(),
        examples,
    )
    .unwrap();
    for name in ["admin-key", "token-secret"] {
        std::fs::write(secrets.join(name), ADMIN_KEY).unwrap();
    }
    let (mut nodes, mut balancers) = (0, 0);
    for line in blocks("6. Deploy without loss", "sh").join("\n").lines() {
        let words = line
            .split(" &")
            .next()
            .unwrap()
            .split(' ')
            .collect::<Vec<_>>();
        match &*words {
            ["curfew", "serve", arguments @ ..] => {
                let mut check = std::process::Command::new(curfew_binary());
                run(check
                    .arg("check-config")
                    .args(arguments)
                    .current_dir(folder.path()))
                .content();
                nodes += 1;
            }
            ["haproxy", "-f", file] => {
                run(system_tool("haproxy")
                    .args(["-c", "-f"])
                    .arg(repository(file)))
                .content();
                balancers += 1;
            }
            _ => {}
        }
        let files = line
            .split([' ', '=', '"'])
            .filter(|word| word.starts_with("deploy/"));
        for file in files.filter(|file| !file.starts_with("deploy/secrets")) {
            assert!(Path::new(&repository(file)).exists(), "{line}: {file}");
        }
    }
    assert_eq!((nodes, balancers), (2, 1));
}

#[test]
fn text_that_differs_is_told_apart_from_text_that_is_wrong() {
    for (told, printed, expected) in [
        ("a  b", "a b\n", true),
        ("a b", "a c", false),
        ("a\nb", "b\na", true),
        ("a\na", "a\nb", false),
        ("a", "a\nb", false),
        (
            r#"{"epoch":"x","offset":1}"#,
            r#"{"epoch":"y","offset":1}"#,
            true,
        ),
        (
            r#"{"epoch":"x","offset":1}"#,
            r#"{"epoch":"x","offset":2}"#,
            false,
        ),
        ("bob 2s ago in 4m 58s", "bob now in 5m", true),
        ("bob 2s ago", "bob 2 ago", false),
        (
            "01a22a6c-bdf4-73bf-be47-0d6703324c9e a",
            "01a22a6c-c207-7698-8534-1bec21c2452a a",
            true,
        ),
        ("{\"token\":\"eyJ…\"}", "{\"token\":\"eyJx\"}", true),
        ("{\"token\":\"eyJ…\"}", "{\"token\":\"x\"}", false),
    ] {
        assert_eq!(is_as_told(told, printed), expected, "{told}: {printed}");
    }
}
