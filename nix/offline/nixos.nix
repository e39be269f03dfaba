{ lib }: _: throw "no machine yet"
