SELECT number, document, ueln, issuer, issued FROM passport WHERE document = @document
