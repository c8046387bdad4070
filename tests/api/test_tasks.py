from tests.factories import TeamSetting


def test_an_agent_starts_and_completes_a_task(team: TeamSetting) -> None:
    task = team.task(title="Write", prompt="about tides")
    assert (task["status"], task["llm_tokens_used"], task["result"]) == ("pending", 0, None)

    started = team.member.post(f"{team.path}/tasks/{task['id']}/start")
    assert (started.status_code, started.json["status"]) == (200, "processing")

    done = team.member.post(
        f"{team.path}/tasks/{task['id']}/complete",
        json={"result": {"words": [1, None, "x"]}, "llm_tokens_used": 42},
    )
    assert (done.status_code, done.json["status"]) == (200, "completed")
    assert (done.json["result"], done.json["llm_tokens_used"]) == ({"words": [1, None, "x"]}, 42)
    assert team.viewer.get(f"{team.path}/tasks/{task['id']}").json == done.json
