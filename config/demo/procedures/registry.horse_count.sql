SELECT count(*) AS horses FROM horse WHERE @breed IS NULL OR breed = @breed
