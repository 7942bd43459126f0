"""What costs money is counted, bounded and never spent for nothing; no answer that holds a key is stored."""

import json

import pytest

from lore_datasets.errors import ConfigError, LimitReached, ServiceError, UsageError
from pipeline.config import AdviseConfig, AskConfig, PipelineConfig
from pipeline.llm import backend_from, get_backend
from pipeline.llm.base import Capabilities, Prompt, Response, complete
from pipeline.llm.journal.journal import Journal
from pipeline.llm.keys import without_key
from pipeline.llm.prices import price
from pipeline.rounds.advise import advise, dry_run, prepare

KEY = "AIzaCANARYCANARYCANARYCANARYCANARYCANAR"
BOTH = pytest.mark.parametrize("name", ["gemini", "openai"])
PLAIN = AdviseConfig(skill_questions=0, plan_share=0.0)


def service(name, server, model="gemini-2.5-flash-lite", **options):
    url = server.url + ("/v1" if name == "openai" else "")
    return get_backend(name, model=model, base_url=url, attempts=1, backoff_s=0.01, concurrency=2, **options)


def settings(**ask):
    return PipelineConfig(ask=AskConfig(**ask), advise=PLAIN)


def paid(scripted, dollars=0.25):
    make = scripted().make
    return scripted(
        lambda p: Response(make(p), model="paid-1", price_usd=dollars), name="paid", chunk=1, estimate=lambda p: dollars
    )


def test_a_limit_on_cost_counts_what_the_journal_has_paid_in_earlier_calls(env, states, store, tmp_path, scripted):
    llm = paid(scripted)
    for _ in range(4):
        with Journal(tmp_path / "j.sqlite") as journal, pytest.raises(LimitReached, match=r"1\.0000 USD") as stop:
            advise(states[:32], env, llm, store, "a", settings(max_cost=1.0), journal)
    assert len(llm.asked) == 4 and "(1.0000 of them in earlier runs)" in stop.value.message
    with Journal(tmp_path / "j.sqlite") as journal:
        assert journal.paid() == 1.0
        assert dry_run(prepare(states[:32], env, llm, store, "a", settings(), journal)).paid_usd == 1.0
        cost = store.manifest(advise(states[:6], env, llm, store, "a", settings(max_cost=1.5), journal)).cost
    assert (cost["journal_usd_before"], cost["journal_usd_after"], cost["asked_now"]) == (1.0, 1.5, 2)


def test_tokens_from_the_cache_are_priced_as_the_service_does(server, monkeypatch):
    assert price("gemini-2.5-flash-lite", 1_000_000, 0, cached=900_000) == pytest.approx(0.01 + 0.009)
    assert price("gemini-2.5-flash-lite", 1_000_000, 0, cached=900_000, batch=True) == pytest.approx(0.005 + 0.009)
    for name, usage in (
        ("gemini", {"cachedContentTokenCount": 80}),
        ("openai", {"prompt_tokens_details": {"cached_tokens": 80}}),
    ):
        server.usage = usage
        llm = service(name, server)
        llm.is_free = False
        answer = complete(llm, [Prompt("prior", "s", "u", {"type": "object"})])[0]
        assert not answer.error
        assert (answer.tokens_in, answer.tokens_cached, answer.tokens_out) == (100, 80, 10)
        assert answer.price_usd == pytest.approx((20 * 0.10 + 80 * 0.01 + 10 * 0.40) / 1e6)


@pytest.mark.parametrize(
    ("model", "wanted", "thinking", "room"),
    [("gemini-2.5-flash", -1, {"thinkingBudget": 0}, 0), ("gemini-2.5-flash", 500, {"thinkingBudget": 500}, 500),
     ("gemini-2.5-pro", -1, {"thinkingBudget": 1024}, 1024), ("gemini-2.5-pro", 0, {"thinkingBudget": 128}, 128),
     ("gemini-3-flash", -1, {"thinkingLevel": "LOW"}, 1024), ("gemini-2.0-flash", -1, None, 0)],
)  # fmt: skip
def test_a_model_that_thinks_has_room_for_it_beside_its_answer(model, wanted, thinking, room, server):
    llm = backend_from(AskConfig(backend="gemini", model=model, base_url=server.url, thinking_tokens=wanted))
    assert complete(llm, [Prompt("prior", "s", "u", max_tokens=256)])[0].error is None
    sent = server.seen[0][2]["generationConfig"]
    assert sent["maxOutputTokens"] == 256 + room and sent.get("thinkingConfig") == thinking


def test_a_model_that_refuses_max_tokens_is_asked_with_its_own_parameter_and_room_to_think(server):
    server.mode = lambda question, n: "reasoning"
    llm = service("openai", server, model="o4")
    assert [r.error for r in complete(llm, [Prompt("prior", "s", f"u{i}", max_tokens=256) for i in range(4)])] == [
        None
    ] * 4
    bodies = [body for _, _, body in server.seen]
    good = [body for body in bodies if "max_completion_tokens" in body and "temperature" not in body]
    assert len(good) == 4 and {body["max_completion_tokens"] for body in good} == {256 + 1024}
    assert len(bodies) - len(good) <= 4  # two at a time learn it together
    keys = [{k.lower(): v for k, v in head.items()}["idempotency-key"] for _, head, _ in server.seen]
    assert len(set(keys)) == len(keys)


@BOTH
def test_an_answer_cut_at_its_limit_is_not_asked_for_again(name, server, env, states, store):
    cut = {}

    def mode(question, n):
        return cut.setdefault(question, "maxtok" if len(cut) % 2 else "ok")

    server.mode = mode
    manifest = store.manifest(advise(states[:8], env, service(name, server), store, "a", settings(retries=2)))
    assert len(server.seen) == 8 and manifest.counts["rejected"] == {"cut": 4} and manifest.counts["rows"] == 4
    assert manifest.counts["rates"]["malformed"] == 0.5


@BOTH
def test_twenty_unusable_answers_in_a_row_stop_the_asking_with_the_reason(name, server, env, states, store):
    server.mode = "maxtok"
    with Journal() as journal:
        with pytest.raises(ServiceError, match="20 answers in a row could not be used: answer was cut") as stop:
            advise(states, env, service(name, server), store, "a", settings(), journal)
        assert len(server.seen) <= 21 and "thinking_tokens" in stop.value.hint and len(journal) == len(server.seen)
    assert store.names() == []


def test_usable_answers_between_unusable_ones_let_the_asking_go_on(env, states, store, scripted):
    make = scripted().make
    llm = scripted(lambda p: make(p) if sum(p.state) % 4 == 0 else "no", chunk=1)
    ref = advise(states, env, llm, store, "a", settings(retries=0, max_unusable=40))
    assert store.manifest(ref).counts["no_advice"] > 20


def test_what_is_asked_again_counts_in_no_row_and_a_refused_question_is_asked_once(env, states, store, scripted):
    make, ids = scripted().make, {states[i].pack().tobytes(): i for i in range(60)}
    refused = Response("", finish="error", error="HTTP 400", status=400)
    llm = scripted(
        lambda p: refused if ids[p.state] % 10 == 0 else "no" if ids[p.state] % 10 == 5 else make(p), chunk=1
    )
    asking = PipelineConfig(ask=AskConfig(retries=2, max_unusable=7), advise=AdviseConfig(kinds="prior", orders=1))
    counts = store.manifest(advise(states[:60], env, llm, store, "a", asking)).counts
    assert (counts["rows"], counts["failed"], counts["malformed"]) == (48, {"prior": 6}, {"prior": 18})
    assert len(llm.asked) == 60 + 2 * 6


@BOTH
@pytest.mark.parametrize(("mode", "said"), [("400", "refuses the request"), ("404", "refuses the request"),
                                            ("401", "refuses the key"), ("badkey", "refuses the key")])  # fmt: skip
def test_a_permanent_refusal_never_says_to_run_again_later(name, mode, said, server):
    if mode == "badkey" and name == "openai":
        pytest.skip("OpenAI answers 401")
    server.mode = mode
    prompts = [Prompt("prior", "s", f"u{i}") for i in range(9)]
    with Journal() as journal, pytest.raises(ServiceError, match=said) as stop:
        journal.ask(service(name, server), prompts)
    assert "later" not in stop.value.hint and "check" in stop.value.hint
    server.mode = "503"
    with Journal() as journal, pytest.raises(ServiceError) as stop:
        journal.ask(service(name, server), prompts)
    assert "again later" in stop.value.hint


@BOTH
@pytest.mark.parametrize("where", ["reason", "model", "escaped"])
def test_an_answer_that_holds_a_key_is_refused_counted_and_stored_nowhere(
    name, where, server, env, states, store, tmp_path
):
    answer = json.dumps({"ranked": ["explore"], "confidence": 0.5, "reason": f"key {KEY}" if where != "model" else "r"})
    if where == "escaped":
        answer = answer.replace(KEY, "".join(f"\\u{ord(c):04x}" for c in KEY))
    order = {}

    def is_bad(question):  # every second one, so that no five in a row fail
        return order.setdefault(question, len(order)) % 2 == 0

    good = json.dumps({"ranked": ["explore"], "confidence": 0.5, "reason": "r"})
    server.answer = lambda question: answer if is_bad(question) and where != "model" else good
    server.version = lambda question: KEY if where == "model" and is_bad(question) else "served-1"
    with Journal(tmp_path / "j.sqlite") as journal:
        manifest = store.manifest(advise(states[:8], env, service(name, server), store, "a", settings(), journal))
    bad = sum(is_bad(question) for question in server.answered)
    assert 0 < bad < 8 == len(server.seen) and manifest.counts["rejected"] == {"leaked": bad}
    assert manifest.counts["leaked"] == {"prior": bad} and manifest.counts["rows"] == 8 - bad
    written = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert KEY.encode() not in written and KEY not in str(manifest)
    assert "".join(f"\\u{ord(c):04x}" for c in KEY).encode() not in written


def test_a_key_with_escaped_strokes_is_found(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "abc/def/12345678")
    assert without_key(Response('{"reason": "abc\\/def\\/12345678"}')).finish == "leaked"


@pytest.mark.parametrize("url", ["https://model.invalid/v1?key=SECRETSECRET", "https://model.invalid/v1#SECRETSECRET"])
def test_a_key_in_an_address_is_refused_and_not_shown(url):
    for name in ("gemini", "openai"):
        with pytest.raises(ConfigError, match="base_url") as stop:
            get_backend(name, model="m", base_url=url)
        assert "?key=" in stop.value.hint and "SECRET" not in str(stop.value)


def test_what_is_missing_before_a_question_can_be_asked_is_named(server, monkeypatch):
    for name in ("gemini", "openai"):
        service(name, server).capabilities.check()
        with pytest.raises(ServiceError, match="no server answers"):
            get_backend(name, model="m", base_url="http://127.0.0.1:9/v1").capabilities.check()
    monkeypatch.delenv("GEMINI_API_KEY")
    monkeypatch.delenv("OPENAI_API_KEY")
    for llm in (service("gemini", server), get_backend("openai", model="m")):
        with pytest.raises(UsageError, match="needs a key"):
            llm.capabilities.check()
    Capabilities().check()
