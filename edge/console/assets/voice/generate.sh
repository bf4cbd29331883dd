#!/bin/sh
# Makes the resident display's voice prompts with espeak-ng and opusenc, offline:
#   apt-get install espeak-ng opus-tools && sh generate.sh
# The words are those of the catalogues in edge/text; a test fails when they have
# changed since (spoken.txt). Japanese is written as it is read, because espeak-ng
# reads no kanji.
set -eu
cd "$(dirname "$0")"
catalogues=../../../text
: > spoken.txt
text() { sed -n "s/^display\.$2: *//p" "$catalogues/display.$1.yaml" | sed 's/^"\(.*\)"$/\1/'; }
kana() {
	case $1 in
	measuring) echo "たいおんけいを みて、しばらく おまちください" ;;
	again) echo "もういちど そくてい します。しょうしょう おまちください" ;;
	go) echo "おとおり ください" ;;
	stop) echo "かかりいんに おこえがけ ください" ;;
	free) echo "すぐに ひなん してください" ;;
	closed) echo "この レーンは へいさちゅう です。べつの レーンを ごりよう ください" ;;
	fault) echo "この レーンは しよう できません" ;;
	call) echo "かかりいんが まいります" ;;
	esac
}
for pair in zh-Hans:cmn en:en-gb ja:ja ko:ko ru:ru fr:fr-fr es:es ar:ar; do
	lang=${pair%%:*} voice=${pair##*:}
	for id in measuring again go stop free closed fault call; do
		words=$(text "$lang" "$id")
		printf '%s\t%s\t%s\n' "$lang" "$id" "$words" >> spoken.txt
		[ "$lang" = ja ] && words=$(kana "$id")
		espeak-ng -v "$voice" -s 150 -a 180 --stdout "$words" | opusenc --quiet --bitrate 16 --downmix-mono --comp 10 --serial 1 --discard-comments - "$lang-$id.opus"
	done
done
