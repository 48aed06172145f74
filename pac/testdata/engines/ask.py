# python3 ask.py SCRIPT CALLS
import json
import sys

import pacparser

pacparser.init()
pacparser.parse_pac_file(sys.argv[1])
with open(sys.argv[2], encoding="ascii") as calls:
    for url, host in json.load(calls):
        print(pacparser.find_proxy(url, host))
