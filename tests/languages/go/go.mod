module vigie-language-proof

go 1.19
