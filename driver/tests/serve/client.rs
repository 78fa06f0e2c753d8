//! A server as a process of its own, and a client that speaks HTTP by hand, so that it can misbehave.

use serde_json::Value;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything takes, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The model of all tests: its context has 512 tokens.
pub fn model() -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "examples", "tiny_chat", "model"].iter().collect();
    path.display().to_string()
}

/// The command, not started.
pub fn command(args: &[&str]) -> Command {
    command_for(Path::new(&model()), args)
}

/// The command for another model.
pub fn command_for(model: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sinter"));
    command.arg("serve").arg(model).args(["--port", "0", "--json", "--device", "host"]).args(args);
    command.env("SINTER_CACHE", std::env::temp_dir().join("sinter-serve-tests"));
    command.env_remove("SINTER_API_KEY");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A server that ends with its test.
pub struct Server {
    pub child: Child,
    pub address: String,
}

impl Server {
    /// Starts a server and waits until it listens.
    pub fn start(args: &[&str]) -> Self {
        Self::of(&mut command(args))
    }

    pub fn of(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| {
            let mut words = String::new();
            child.stderr.take().unwrap().read_to_string(&mut words).unwrap();
            panic!("the server did not start: {words}")
        });
        Self { child, address: ready["address"].as_str().unwrap().to_owned() }
    }

    /// Asks, and reads the whole response.
    pub fn ask(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Reply {
        let mut stream = self.send(method, path, headers, body);
        let mut bytes = Vec::new();
        match stream.read_to_end(&mut bytes) {
            Ok(_) => {}
            // A server that refuses a body before it has read all of it may reset the connection after its response.
            Err(error) if error.kind() == ErrorKind::ConnectionReset && !bytes.is_empty() => {}
            Err(error) => panic!("{method} {path}: {error}"),
        }
        Reply::parse(&bytes)
    }

    /// Asks, and leaves the response unread.
    pub fn send(&self, method: &str, path: &str, headers: &[&str], body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut text = format!("{method} {path} HTTP/1.1\r\nhost: sinter\r\nconnection: close\r\n");
        if !body.is_empty() {
            text += &format!("content-length: {}\r\n", body.len());
            if !headers.iter().any(|line| line.to_ascii_lowercase().starts_with("content-type")) {
                text += "content-type: application/json\r\n";
            }
        }
        headers.iter().for_each(|line| text += &format!("{line}\r\n"));
        text += "\r\n";
        stream.write_all(text.as_bytes()).unwrap();
        // The server may have refused already.
        let _ = stream.write_all(body.as_bytes());
        stream
    }

    pub fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, &[], "")
    }

    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.ask("POST", path, &[], &body.to_string())
    }

    /// A gauge or counter of `/metrics`, without labels but the model's.
    pub fn metric(&self, name: &str) -> f64 {
        let page = self.get("/metrics").text();
        let line = page.lines().find(|line| line.starts_with(&format!("{name}{{model_name=")));
        let line = line.unwrap_or_else(|| panic!("no {name} in {page}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Waits until a metric has a value.
    pub fn wait_for(&self, name: &str, wanted: f64) {
        let until = Instant::now() + PATIENCE;
        while self.metric(name) != wanted {
            assert!(Instant::now() < until, "{name} is {}, wanted {wanted}", self.metric(name));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until nothing is computed, and checks that nothing is held then.
    pub fn wait_until_idle(&self) {
        self.wait_for("vllm:num_requests_running", 0.0);
        self.wait_for("vllm:num_requests_waiting", 0.0);
        self.wait_for("sinter:blocks_used", 0.0);
        assert_eq!(self.metric("sinter:requests_total"), self.metric("sinter:requests_finished_total"));
    }

    /// Sends a signal to the process.
    pub fn signal(&self, name: &str) {
        let done = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(done.unwrap().success());
    }

    /// Waits for the end of the process and gives its exit code.
    pub fn exit_code(&mut self) -> Option<i32> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the server does not end")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A response.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn parse(bytes: &[u8]) -> Self {
        let at = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let at = at.unwrap_or_else(|| panic!("no response: {:?}", String::from_utf8_lossy(bytes)));
        let head = String::from_utf8(bytes[..at].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let body = &bytes[at + 4..];
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        Self { status, head, body: if chunked { unchunked(body) } else { body.to_vec() } }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// The body as JSON, which must be a success.
    pub fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    /// The error object, which must have OpenAI's shape.
    pub fn error(&self) -> Value {
        let value: Value = serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", self.text()));
        let error = value["error"].as_object().unwrap_or_else(|| panic!("no error: {value}"));
        let names: Vec<_> = error.keys().collect();
        assert_eq!(names, ["message", "type", "param", "code"], "{value}");
        assert!(error["message"].is_string() && error["type"].is_string() && error["code"].is_string());
        Value::Object(error.clone())
    }

    /// The names and data of events that have names, each of which is the type that the data says.
    pub fn named_events(&self) -> Vec<(String, Value)> {
        assert_eq!(self.status, 200, "{}", self.text());
        let text = self.text();
        let one = |block: &str| {
            let (name, data) = block.split_once('\n').unwrap_or_else(|| panic!("{block}"));
            let name = name.strip_prefix("event: ").unwrap_or_else(|| panic!("{block}"));
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(data["type"], name);
            (name.to_owned(), data)
        };
        text.split("\n\n").filter(|block| !block.is_empty() && !block.starts_with(':')).map(one).collect()
    }

    /// The data of the events, which must end with `[DONE]`.
    pub fn events(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("text/event-stream"));
        let text = self.text();
        let mut lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(lines.pop(), Some("[DONE]"), "{text}");
        lines.into_iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(at) = body.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&body[..at]).unwrap(), 16).unwrap();
        let data = &body[at + 2..];
        if size == 0 || data.len() < size + 2 {
            return all;
        }
        all.extend_from_slice(&data[..size]);
        body = &data[size + 2..];
    }
    all
}
