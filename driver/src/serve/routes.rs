//! The table of paths: what each is for, which fields its body has, and who answers. The router and `/openapi.json` are
//! both made of it.

use super::anthropic::messages as anthropic;
use super::body::Row;
use super::openai::{chat, completions, embeddings, models};
use super::responses::create as responses;
use super::scores::{classify, pairs, rerank};
use super::state::App;
use super::work::Task;
use super::{health, loads, metrics, openapi, page, tokens};
use axum::routing::{MethodRouter, delete, get, post};
use std::sync::Arc;

/// A path with a method.
pub struct Route {
    /// The method.
    pub method: &'static str,
    /// The path, as axum writes it.
    pub path: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// The tables of its body's fields; none if it has no body.
    pub body: Option<&'static [&'static [Row]]>,
    /// The fields that must be there.
    pub required: &'static [&'static str],
    /// What the model must be for; none if any will do.
    pub task: Option<Task>,
    /// Who answers.
    pub handler: MethodRouter<Arc<App>>,
}

/// All paths.
pub fn routes() -> Vec<Route> {
    let mut all = watching();
    all.extend(reading());
    all.extend([
        read("/", "A page to talk with the model and watch the engine.", get(page::index)).of(Task::Writes),
        read("/v1/state", "What the page shows.", get(page::state)),
        read("/v1/models", "The names of the served model.", get(models::list)),
        read("/v1/models/{*name}", "One name of the served model.", get(models::get)),
        write("/v1/chat/completions", "Answers a conversation.", chat::TABLES, post(chat::chat))
            .wants(&["messages"])
            .of(Task::Writes),
        write("/v1/completions", "Continues texts.", completions::TABLES, post(completions::completions))
            .wants(&["prompt"])
            .of(Task::Writes),
        write(
            "/v1/responses",
            "Answers items, and keeps the response.",
            responses::TABLES,
            post(responses::create),
        )
        .of(Task::Writes),
        read("/v1/responses/{id}", "A stored response.", get(responses::get)),
        Route {
            method: "delete",
            ..read("/v1/responses/{id}", "Forgets a response.", delete(responses::delete))
        },
        Route {
            method: "post",
            ..read(
                "/v1/responses/{id}/cancel",
                "Refused: a response on its way is cancelled by closing its connection.",
                post(responses::cancel),
            )
        },
        read(
            "/v1/responses/{id}/input_items",
            "The items that a response answers.",
            get(responses::input_items),
        ),
        write(
            "/v1/messages",
            "Answers a conversation in Anthropic's form.",
            MESSAGES,
            post(anthropic::messages),
        )
        .wants(&["messages", "max_tokens"])
        .of(Task::Writes),
        write(
            "/v1/messages/count_tokens",
            "Counts the tokens of a conversation.",
            COUNT,
            post(anthropic::count_tokens),
        )
        .wants(&["messages"])
        .of(Task::Writes),
        write(
            "/tokenize",
            "The token ids of a text or a conversation.",
            tokens::TOKENIZE_TABLES,
            post(tokens::tokenize),
        ),
        write("/detokenize", "The text of token ids.", &[tokens::DETOKENIZE], post(tokens::detokenize))
            .wants(&["tokens"]),
        read("/openapi.json", "This description.", get(openapi::document)),
    ]);
    all
}

const MESSAGES: &[&[Row]] = &[anthropic::PROMPT, anthropic::ANSWER];
const COUNT: &[&[Row]] = &[anthropic::PROMPT];

/// The paths of models that write no text.
fn reading() -> Vec<Route> {
    let embeddings =
        write("/v1/embeddings", "Makes vectors of texts.", embeddings::TABLES, post(embeddings::embeddings));
    let rerank = |path| {
        write(path, "Orders documents by a query.", rerank::TABLES, post(rerank::rerank))
            .wants(&["query", "documents"])
            .of(Task::Scores)
    };
    let score = |path| {
        write(path, "Scores pairs of texts.", pairs::TABLES, post(pairs::score))
            .wants(&["text_1", "text_2"])
            .of(Task::Scores)
    };
    let classify = |path| {
        write(path, "The labels of texts.", classify::TABLES, post(classify::classify))
            .wants(&["input"])
            .of(Task::Scores)
    };
    vec![
        embeddings.wants(&["input"]).of(Task::Vectors),
        rerank("/v1/rerank"),
        rerank("/v2/rerank"),
        rerank("/rerank"),
        score("/v1/score"),
        score("/score"),
        classify("/v1/classify"),
        classify("/classify"),
    ]
}

/// The paths of those who watch over the server.
fn watching() -> Vec<Route> {
    let alive = "Whether the process answers.";
    let well = "Whether the engine works, or could at once.";
    vec![
        read("/live", alive, get(health::live)),
        read("/livez", alive, get(health::live)),
        read("/ping", alive, get(health::live)),
        Route { method: "post", ..read("/ping", alive, post(health::live)) },
        read("/health", well, get(health::health)),
        read("/healthz", well, get(health::health)),
        read("/ready", well, get(health::health)),
        read("/readyz", well, get(health::health)),
        read("/version", "The version.", get(health::version)),
        read("/metrics", "Numbers in Prometheus' form.", get(metrics::metrics)),
        read("/load", "How many requests there are.", get(loads::load)),
        read("/v1/loads", "How busy the engine is.", get(loads::loads)),
        read("/server_info", "What the server was started with.", get(loads::server_info)),
        read("/get_server_info", "What the server was started with.", get(loads::server_info)),
        read("/model_info", "The facts of the model.", get(loads::model_info)),
        read("/get_model_info", "The facts of the model.", get(loads::model_info)),
    ]
}

fn read(path: &'static str, about: &'static str, handler: MethodRouter<Arc<App>>) -> Route {
    Route { method: "get", path, about, body: None, required: &[], task: None, handler }
}

fn write(
    path: &'static str,
    about: &'static str,
    body: &'static [&'static [Row]],
    handler: MethodRouter<Arc<App>>,
) -> Route {
    Route { method: "post", path, about, body: Some(body), required: &[], task: None, handler }
}

impl Route {
    /// A path for models of a task alone.
    fn of(self, task: Task) -> Self {
        Self { task: Some(task), ..self }
    }
    fn wants(self, required: &'static [&'static str]) -> Self {
        Self { required, ..self }
    }
}
