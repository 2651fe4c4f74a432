import subprocess
import sys
from collections import Counter

TAKE = """
import sys
from pathlib import Path
from lib.models import devices
sys.stdin.readline()
print(devices.take_card(3, Path(sys.argv[1])), devices.take_card(3, Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


def test_jobs_spread_over_the_cards_and_a_card_that_is_left_is_taken_again(tmp_path):
    def take(job):
        print(file=job.stdin, flush=True)
        first, again = job.stdout.readline().split()
        assert first == again
        return int(first)
    # all import torch at once, and take their cards one after another
    jobs = [subprocess.Popen([sys.executable, "-c", TAKE, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             text=True) for _ in range(6)]
    cards = [take(job) for job in jobs[:5]]
    assert Counter(cards) == {0: 2, 1: 2, 2: 1}
    jobs[1].kill()
    jobs[1].wait()
    assert take(jobs[5]) == cards[1] == 1
    for job in jobs:
        job.communicate()
