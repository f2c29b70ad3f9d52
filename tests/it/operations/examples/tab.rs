//! A visitor of a chat: a tab of Chromium that shows the chat's page.

use fantoccini::elements::Element;
use fantoccini::wd::WindowHandle;
use serde_json::json;

use super::Chat;
use crate::demo::Browser;

/// One visitor's tab.
pub(super) struct Tab<'a> {
    browser: &'a Browser,
    window: WindowHandle,
    user: &'a str,
}

impl<'a> Tab<'a> {
    pub(super) async fn join(browser: &'a Browser, chat: &Chat, user: &'a str) -> Self {
        let window = browser.client.new_window(true).await.unwrap().handle;
        let tab = Self {
            browser,
            window,
            user,
        };
        tab.join_again(chat).await;
        tab.until_shown("#state", &format!("{user}: open")).await;
        tab
    }

    /// Opens the page again, as the same user.
    pub(super) async fn join_again(&self, chat: &Chat) {
        self.front().await;
        self.browser
            .open(&format!("http://{}/", chat.address))
            .await;
        let ready = async || {
            let script = "return document.getElementById('login').onsubmit !== null";
            self.browser
                .client
                .execute(script, Vec::new())
                .await
                .unwrap()
                == true
        };
        self.browser.until("the script has run", ready).await;
        self.field("#name")
            .await
            .send_keys(self.user)
            .await
            .unwrap();
        self.click("#login button").await;
    }

    async fn front(&self) {
        let window = self.window.clone();
        self.browser.client.switch_to_window(window).await.unwrap();
    }

    async fn field(&self, selector: &str) -> Element {
        self.browser.find(selector).await
    }

    async fn click(&self, selector: &str) {
        self.browser.find(selector).await.click().await.unwrap();
    }

    pub(super) async fn say(&self, text: &str) {
        self.front().await;
        self.field("#text").await.send_keys(text).await.unwrap();
        self.click("#say button").await;
    }

    pub(super) async fn announce(&self, text: &str) {
        self.front().await;
        self.field("#text").await.send_keys(text).await.unwrap();
        self.click("#announce").await;
    }

    pub(super) async fn revoke(&self, user: &str) {
        self.front().await;
        // The click is made by a script, because the list may change between a lookup and a click.
        let script = "[...document.querySelectorAll('#people li')]
            .find((person) => person.firstChild.data === arguments[0]).querySelector('button').click()";
        let clicked = self.browser.client.execute(script, vec![json!(user)]).await;
        clicked.unwrap();
    }

    /// The messages on the page, each as `author: text`.
    pub(super) async fn lines(&self) -> Vec<String> {
        self.front().await;
        let script = "return [...document.querySelectorAll('#messages li')]
            .map((line) => [...line.childNodes].map((part) => part.textContent).join(': '))";
        let lines = self.browser.client.execute(script, Vec::new()).await;
        serde_json::from_value(lines.unwrap()).unwrap()
    }

    pub(super) async fn until_last(&self, line: &str) {
        let what = format!("{} is shown {line:?}", self.user);
        let holds = async || self.lines().await.last().is_some_and(|last| last == line);
        self.browser.until(&what, holds).await;
    }

    /// Waits until an element shows this text. The text of a list is the text of its items.
    pub(super) async fn until_shown(&self, selector: &str, text: &str) {
        self.front().await;
        let what = format!("{} is shown {text:?} in {selector}", self.user);
        let script = "const found = document.querySelector(arguments[0]);
            return found.matches('ul') ? [...found.children].map((item) => item.textContent).join() : found.textContent";
        let holds = async || {
            let arguments = vec![json!(selector)];
            self.browser
                .client
                .execute(script, arguments)
                .await
                .unwrap()
                == text
        };
        self.browser.until(&what, holds).await;
    }

    /// Asserts that the page had no error.
    pub(super) async fn assert_content(&self) {
        self.front().await;
        assert_eq!(self.browser.complaints().await, Vec::<String>::new());
    }
}
