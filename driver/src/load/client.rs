//! One request over HTTP, and when its events came.

use anyhow::{Context, Result, anyhow, bail};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Longer than any answer should take.
const PATIENCE: Duration = Duration::from_secs(900);
/// Bytes of an answer that is not a stream, and of one event.
const MOST: usize = 16 << 20;

/// What a request gave. Times are in seconds after the client's start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// When it was sent.
    pub sent: f64,
    /// When each event that carries text came.
    pub stamps: Vec<f64>,
    /// Tokens of the answer, as the server counts them.
    pub output_tokens: usize,
    /// Tokens of the prompt, as the server counts them.
    pub prompt_tokens: usize,
    /// Those of them that were in the server's cache, where it says so.
    pub cached_tokens: usize,
    /// The text.
    pub text: String,
    /// Log probabilities of its tokens, as they were written; empty if not asked for.
    pub logprobs: Vec<String>,
}

impl Answer {
    /// Whether both say the same, to the last bit.
    pub fn equals(&self, other: &Answer) -> bool {
        (&self.text, &self.logprobs, self.output_tokens)
            == (&other.text, &other.logprobs, other.output_tokens)
    }
}

/// Asks one server, over connections that are kept.
#[derive(Debug, Clone)]
pub struct LoadClient {
    http: Client<HttpConnector, Full<Bytes>>,
    url: String,
    key: Option<String>,
    start: Instant,
}

impl LoadClient {
    /// A client of the server at `url`, whose clock starts now.
    pub fn new(url: &str, key: Option<String>) -> Result<Self> {
        if !url.starts_with("http://") {
            bail!("--url {url}: wanted http://HOST:PORT");
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { http, url: url.trim_end_matches('/').into(), key, start: Instant::now() })
    }

    /// Starts the clock anew.
    pub fn restart(&mut self) {
        self.start = Instant::now();
    }

    fn now(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// A JSON object that the server tells of itself.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let response = self.send(Method::GET, path, Bytes::new()).await?;
        let body = Limited::new(response.into_body(), MOST).collect().await;
        let body = body.map_err(|error| anyhow!("{path} cannot be read: {error}"))?.to_bytes();
        serde_json::from_slice(&body).with_context(|| format!("{path} gave no JSON"))
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let request = request.header("content-type", "application/json").body(Full::new(body))?;
        let response = self.http.request(request).await;
        let response = response.map_err(|error| anyhow!("cannot reach {}: {}", self.url, chain(&error)))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = Limited::new(response.into_body(), MOST).collect().await;
        let text =
            body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
        let message = serde_json::from_str::<Value>(&text).ok();
        let message = message.and_then(|value| value["error"]["message"].as_str().map(str::to_owned));
        bail!("{status}: {}", message.unwrap_or(text));
    }

    /// Greedy continuation by exactly `output` tokens, as events.
    pub async fn complete(
        &self,
        model: &str,
        prompt: &[u32],
        output: usize,
        checked: bool,
    ) -> Result<Answer> {
        let mut body = json!({
            "model": model,
            "prompt": prompt,
            "max_tokens": output,
            "temperature": 0,
            "ignore_eos": true,
            "stream": true,
            "stream_options": { "include_usage": true },
        });
        if checked {
            body["logprobs"] = json!(0);
        }
        let body = Bytes::from(body.to_string());
        let sent = self.now();
        let work = async {
            let response = self.send(Method::POST, "/v1/completions", body).await?;
            let mut answer = Answer { sent, ..Answer::default() };
            self.follow(response.into_body(), &mut answer).await?;
            Ok(answer)
        };
        let answer = tokio::time::timeout(PATIENCE, work).await;
        answer.map_err(|_| anyhow!("no answer within {} s", PATIENCE.as_secs()))?
    }

    async fn follow(&self, mut body: Incoming, answer: &mut Answer) -> Result<()> {
        let mut lines = Lines::default();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.context("the answer broke off")?.into_data() else { continue };
            let now = self.now();
            for event in lines.push(&data)? {
                if event == "[DONE]" {
                    if answer.stamps.is_empty() || answer.output_tokens == 0 {
                        bail!("the answer ended without a token");
                    }
                    return Ok(());
                }
                take(answer, &event, now)?;
            }
        }
        bail!("the answer broke off before [DONE]")
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

/// Takes one event into an answer.
fn take(answer: &mut Answer, event: &str, now: f64) -> Result<()> {
    let event: Value = serde_json::from_str(event).context("an event is not JSON")?;
    if let Some(error) = event.get("error").filter(|error| !error.is_null()) {
        bail!("{}", error["message"].as_str().unwrap_or("an error without a message"));
    }
    let choice = &event["choices"][0];
    let text = choice["text"].as_str().unwrap_or_default();
    let logprobs = choice["logprobs"]["token_logprobs"].as_array();
    if !text.is_empty() || logprobs.is_some_and(|logprobs| !logprobs.is_empty()) {
        answer.stamps.push(now);
        answer.text += text;
        answer.logprobs.extend(logprobs.into_iter().flatten().map(Value::to_string));
    }
    let usage = &event["usage"];
    let count = |value: &Value| value.as_u64().map(|count| count as usize);
    if let (Some(output), Some(prompt)) = (count(&usage["completion_tokens"]), count(&usage["prompt_tokens"]))
    {
        (answer.output_tokens, answer.prompt_tokens) = (output, prompt);
        answer.cached_tokens = count(&usage["prompt_tokens_details"]["cached_tokens"]).unwrap_or(0);
    }
    Ok(())
}

/// The data of server-sent events, from pieces cut anywhere.
#[derive(Debug, Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    fn push(&mut self, data: &[u8]) -> Result<Vec<String>> {
        self.rest.extend_from_slice(data);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            if self.rest.len() > MOST {
                bail!("an event of more than {MOST} bytes");
            }
            return Ok(Vec::new());
        };
        let whole: Vec<u8> = self.rest.drain(..=end).collect();
        let text = String::from_utf8(whole).context("an event is not UTF-8")?;
        let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
        Ok(data.map(|data| data.trim().to_owned()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_may_be_cut_anywhere() {
        let whole = "data: {\"a\":1}\n\n: a remark\nevent: x\r\ndata:[DONE]\r\n\r\n".as_bytes();
        for size in 1..whole.len() {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            whole.chunks(size).for_each(|piece| found.extend(lines.push(piece).unwrap()));
            assert_eq!(found, ["{\"a\":1}", "[DONE]"], "pieces of {size}");
        }
        assert!(Lines::default().push(b"data: \xff\n").is_err());
    }

    #[test]
    fn an_answer_is_gathered_from_its_events() {
        let mut answer = Answer::default();
        let events = [
            r#"{"choices":[{"text":"He","logprobs":{"token_logprobs":[-0.5]}}]}"#,
            r#"{"choices":[{"text":"y","logprobs":{"token_logprobs":[-1.25,null]}}]}"#,
            r#"{"choices":[{"text":"","finish_reason":"length"}]}"#,
            r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":4}}}"#,
        ];
        for (at, event) in events.into_iter().enumerate() {
            take(&mut answer, event, at as f64).unwrap();
        }
        assert_eq!((answer.text.as_str(), answer.stamps.as_slice()), ("Hey", [0.0, 1.0].as_slice()));
        assert_eq!(answer.logprobs, ["-0.5", "-1.25", "null"]);
        assert_eq!((answer.prompt_tokens, answer.output_tokens, answer.cached_tokens), (7, 3, 4));
        let failed = take(&mut answer, r#"{"error":{"message":"full"}}"#, 9.0);
        assert_eq!(failed.unwrap_err().to_string(), "full");
    }
}
