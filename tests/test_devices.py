import subprocess
import sys
from collections import Counter

TAKE = "import sys; from pathlib import Path; from lib.models import devices\n" \
       "print(devices.take_card(3, Path(sys.argv[1])), devices.take_card(3, Path(sys.argv[1])), flush=True); sys.stdin.read()"


def test_jobs_spread_over_the_cards_and_a_card_that_is_left_is_taken_again(tmp_path):
    def job():
        started = subprocess.Popen([sys.executable, "-c", TAKE, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        first, again = started.stdout.readline().split()
        assert first == again
        return started, int(first)
    jobs = [job() for _ in range(5)]
    assert Counter(card for _, card in jobs) == {0: 2, 1: 2, 2: 1}
    killed, card = jobs.pop(1)
    killed.kill()
    killed.wait()
    jobs.append(job())
    assert jobs[-1][1] == card == 1
    for started, _ in jobs:
        started.communicate()
