#!/bin/sh
# Makes a signed package repository of the .deb files in a folder, for any web
# server: publish.sh FOLDER KEY. KEY is the name or fingerprint of a secret key in
# GnuPG; "gpg --export KEY > gatehouse-archive-keyring.gpg" is what gates need.
# Needs apt-utils and gnupg. Run it again after adding files; keep the version
# before the newest, for gates that go back.
set -eu
cd "$1"
key=$2
apt-ftparchive packages . >Packages
gzip -9kf Packages
cat >release.conf <<END
APT::FTPArchive::Release::Origin "Gatehouse";
APT::FTPArchive::Release::Label "Gatehouse";
APT::FTPArchive::Release::Suite "stable";
END
apt-ftparchive -c release.conf release . >Release
rm release.conf
rm -f InRelease
gpg --batch --yes --local-user "$key" --clearsign --output InRelease Release
